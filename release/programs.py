"""Programs and commands on the card: they run the published weights, of the branch that the card belongs to, in the
published dtype, with the sampling that the scores were made with.

No default of another program is left to hold: transformers takes the 50 likeliest tokens where nothing is said, vLLM
turns float32 into bfloat16, llama.cpp and Ollama have penalties and cut-offs of their own.
"""

import json
import shlex
from typing import Any

from kto_release.release import markdown
from kto_release.release.facts import PUBLIC_HUB, CardFacts
from kto_release.release.markdown import Raw

GGUF_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""What llama.cpp's converter calls a dtype."""
MESSAGES = 'messages = [{"role": "user", "content": "Hi! I\'m looking for a cake recipe."}]'


def programs(facts: CardFacts) -> dict[str, Raw]:
    """Fenced blocks by what they are for: transformers, vllm, serve, llama_cpp, ollama."""
    python, bash = _at_its_hub(facts)
    return {
        "transformers": markdown.fence(python + _transformers(facts), "python"),
        "vllm": markdown.fence(python + _vllm(facts), "python"),
        "serve": markdown.fence(bash + _serve(facts), "bash"),
        "llama_cpp": markdown.fence(bash + _llama_cpp(facts), "bash"),
        "ollama": markdown.fence(_ollama(facts), "bash"),
    }


def _at_its_hub(facts: CardFacts) -> tuple[str, str]:
    """What comes before a Python program and before commands, where the release is on another Hub than the public one.

    Without it they would ask huggingface.co for a repository of that name, which may be anybody's.
    """
    if facts.endpoint == PUBLIC_HUB:
        return "", ""
    python = f'import os\n\nos.environ["HF_ENDPOINT"] = {json.dumps(facts.endpoint)}  # before the imports\n\n'
    return python, f"export HF_ENDPOINT={_shell(facts.endpoint)}\n"


def _name(facts: CardFacts) -> str:
    return facts.repo_id or facts.title


def _dtype(facts: CardFacts) -> str:
    return facts.weights.dtype if facts.weights is not None else "auto"


def _arguments(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _transformers(facts: CardFacts) -> str:
    sampling = facts.sampling
    settings: dict[str, Any] = {"max_new_tokens": sampling.max_tokens, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or 0}
    return f"""from transformers import AutoModelForCausalLM, AutoTokenizer

name = {json.dumps(_name(facts))}
tokenizer = AutoTokenizer.from_pretrained(name, revision={json.dumps(facts.revision)})
model = AutoModelForCausalLM.from_pretrained(
    name, revision={json.dumps(facts.revision)}, dtype={json.dumps(_dtype(facts))}, device_map="auto"
)

{MESSAGES}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
outputs = model.generate(**inputs, {_arguments(settings)})
print(tokenizer.decode(outputs[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def _vllm(facts: CardFacts) -> str:
    sampling = facts.sampling
    settings: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    settings |= {"top_k": sampling.top_k or 0, "max_tokens": sampling.max_tokens}
    return f"""from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model = LLM({json.dumps(_name(facts))}, revision={json.dumps(facts.revision)}, dtype={json.dumps(_dtype(facts))})
    {MESSAGES}
    outputs = model.chat(messages, SamplingParams({_arguments(settings)}))
    print(outputs[0].outputs[0].text)"""


def _serve(facts: CardFacts) -> str:
    return f"vllm serve {_shell(_name(facts))} --revision {_shell(facts.revision)} --dtype {_dtype(facts)}"


def _llama_cpp(facts: CardFacts) -> str:
    name, sampling = _shell(_name(facts)), facts.sampling
    kind = GGUF_TYPES.get(_dtype(facts), "auto")
    return f"""hf download {name} --revision {_shell(facts.revision)} --local-dir model
python convert_hf_to_gguf.py model --outtype {kind} --outfile model.gguf
llama-server -m model.gguf --jinja --temp {sampling.temperature:g} --top-p {sampling.top_p:g} \\
  --top-k {sampling.top_k or 0} --min-p 0 --repeat-penalty 1"""


def _ollama(facts: CardFacts) -> str:
    sampling = facts.sampling
    return f"""cat > Modelfile <<END
FROM ./model.gguf
PARAMETER temperature {sampling.temperature:g}
PARAMETER top_p {sampling.top_p:g}
PARAMETER top_k {sampling.top_k or 0}
PARAMETER min_p 0
PARAMETER repeat_penalty 1
END
ollama create model -f Modelfile && ollama run model"""


def _shell(text: str) -> str:
    return shlex.quote(markdown.plain(text))
