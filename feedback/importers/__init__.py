"""Exports of other tools, each turned into rows of prompt, completion and label: `kto-release import`.

A source is one entry here, and its function in the file that it comes from.
"""

from kto_release.feedback.importers.anything_llm import ANYTHING_LLM
from kto_release.feedback.importers.argilla import ARGILLA
from kto_release.feedback.importers.chainlit import CHAINLIT
from kto_release.feedback.importers.chat_ui import CHAT_UI
from kto_release.feedback.importers.chatgpt import CHATGPT
from kto_release.feedback.importers.dify import DIFY
from kto_release.feedback.importers.helicone import HELICONE
from kto_release.feedback.importers.label_studio import LABEL_STUDIO
from kto_release.feedback.importers.langfuse import LANGFUSE
from kto_release.feedback.importers.langsmith import LANGSMITH
from kto_release.feedback.importers.librechat import LIBRECHAT
from kto_release.feedback.importers.mlflow import MLFLOW
from kto_release.feedback.importers.open_webui import OPEN_WEBUI
from kto_release.feedback.importers.openai_log import OPENAI_LOG
from kto_release.feedback.importers.phoenix import PHOENIX
from kto_release.feedback.importers.tensorzero import TENSORZERO
from kto_release.feedback.importers.training_rows import LLAMA_FACTORY, MS_SWIFT, OPENAI_DPO

SOURCES = (
    OPEN_WEBUI,
    LANGFUSE,
    LANGSMITH,
    PHOENIX,
    HELICONE,
    ARGILLA,
    LABEL_STUDIO,
    ANYTHING_LLM,
    DIFY,
    LIBRECHAT,
    CHAT_UI,
    CHAINLIT,
    CHATGPT,
    TENSORZERO,
    MLFLOW,
    OPENAI_DPO,
    LLAMA_FACTORY,
    MS_SWIFT,
    OPENAI_LOG,
)
