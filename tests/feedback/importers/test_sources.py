"""Every other source: an invented export in its shape, the rows that come of it, and its traps."""

import json

ASK = [{"role": "user", "content": "Is it ripe?"}]
ASKED = "user: Is it ripe?"


def response(text="Yes.", finish="stop", model="mini-1"):
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    return {"id": "r", "model": model, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def test_openai_log(importer):
    """Ratings find their request by the id; unrated, unknown, cut and failed answers are counted."""
    log = [
        {"id": "a", "request": {"model": "mini", "messages": ASK}, "response": response()},
        {"id": "b", "request": {"messages": ASK}, "response": response("No.")},
        {"id": "c", "request": {"messages": ASK}, "response": response(finish="length")},
        {"id": "d", "request": {"messages": ASK}, "response": {"error": {"message": "busy"}}},
        {"id": "e", "request": {"messages": ASK}, "response": response()},
    ]
    ratings = [
        {"id": "a", "rating": "up", "user": "u1"}, {"id": "b", "rating": "thumbs_down"}, {"id": "c", "rating": "up"},
        {"id": "d", "rating": "up"}, {"id": "x", "rating": "up"}, {"id": "e", "rating": "neutral"},
    ]  # fmt: skip
    made = importer("openai-log", {"log.jsonl": log, "ratings.jsonl": ratings}, "--join", "id")
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "No.", False)]
    assert made.left_out == {
        "looked up for other records: no rating of its own": 5, "unfinished answer": 1, "failed answer": 1,
        "rating of an answer that the log does not hold": 1, "neutral rating": 1,
    }  # fmt: skip


def test_langfuse_table_of_traces(importer):
    """Each score is a column with a list; contradicting values are counted; who rated is not known and warned of."""
    base = {
        "timestamp": "2026-10-01T10:00:00Z", "name": "chat", "userId": "u7", "sessionId": "s2", "tags": ["web"],
        "input": {"messages": ASK}, "output": {"role": "assistant", "content": "Yes."}, "metadata": {}, "comments": [],
    }  # fmt: skip
    rows = [
        {**base, "id": "1", "thumb": [1]}, {**base, "id": "2", "thumb": [0]}, {**base, "id": "3", "thumb": None},
        {**base, "id": "4", "thumb": [0, 1]},
    ]  # fmt: skip
    rule = ("--score", "thumb", "--desirable", ">=1", "--undesirable", "<=0")
    made = importer("langfuse", {"traces.json": rows}, *rule)
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "Yes.", False)]
    assert made.left_out == {
        "no rating": 1, "several scores that contradict each other or come from several people": 1,
    }  # fmt: skip
    assert "2 ratings do not say who gave them" in made.result.err


def test_langfuse_tables_of_the_blob_storage(importer):
    """Scores find their generation, else their trace; judges' are left out; a correction gives two rows."""
    trace = {
        "id": "t1",
        "timestamp": "2026-10-01 10:00:00",
        "user_id": "u",
        "session_id": "s",
        "input": "x",
        "output": "y",
    }
    step = {"id": "o1", "trace_id": "t1", "type": "GENERATION", "input": ASK, "output": response(), "model": "mini"}
    score = {
        "id": "c1", "timestamp": "2026-10-01 10:01:00", "trace_id": "t1", "observation_id": "o1", "name": "thumb",
        "value": 1, "source": "API", "data_type": "BOOLEAN", "string_value": "True",
    }  # fmt: skip
    scores = [
        score, {**score, "id": "c2", "source": "EVAL", "name": "judge"}, {**score, "id": "c3", "observation_id": "gone"},
        {**score, "id": "c4", "name": "output", "data_type": "CORRECTION", "value": 0, "long_string_value": "Not yet."},
    ]  # fmt: skip
    tables = {"traces.jsonl": [trace], "observations.jsonl": [step], "scores.jsonl": scores}
    made = importer("langfuse", tables)
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "Not yet.", True), (ASKED, "Yes.", False)]
    assert [row["origin"]["kind"] for row in made.rows] == ["score", "correction", "correction"]
    assert made.left_out == {
        "looked up for other records: no rating of its own": 2, "rated by a model or a program": 1,
        "the conversation is not in the export": 1,
    }  # fmt: skip


def test_langsmith(importer):
    """LangChain's serialised messages and OpenAI's are read; a model's feedback is left out."""
    inputs = {"messages": [[{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
               "kwargs": {"content": "Is it ripe?"}}]]}  # fmt: skip
    run = {
        "id": "r1",
        "run_type": "llm",
        "inputs": inputs,
        "outputs": {"generations": [[{"text": "Yes."}]]},
        "error": None,
    }
    said = {"id": "f1", "created_at": "2026-10-01T10:01:00Z", "run_id": "r1", "key": "thumb", "score": 1, "value": None,
            "correction": None, "feedback_source": {"type": "api", "user_id": "u"}}  # fmt: skip
    openai = {**run, "id": "r2", "inputs": {"messages": ASK}, "outputs": response("No.")}
    records = [
        {"feedback": said, "run": run},
        {"feedback": {**said, "id": "f2", "run_id": "r2", "score": 0}, "run": openai},
        {"feedback": {**said, "id": "f3", "feedback_source": {"type": "model"}}, "run": run},
        {"feedback": {**said, "id": "f4", "run_id": "r4"}, "run": {**run, "run_type": "chain"}},
        {"feedback": {**said, "id": "f5", "run_id": "r5", "key": "fix", "correction": {"output": "Soon."}}, "run": run},
    ]
    made = importer(
        "langsmith", records, "--desirable", ">=1", "--undesirable", "<=0", "--score", "thumb", "--by", "human"
    )
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "No.", False)]
    assert made.left_out["rated by a model or a program"] == 1
    assert made.left_out["another score than 'thumb'"] == 2
    assert made.left_out["rating of a 'chain' run, whose inputs are the app's and not the model's"] == 1


def test_a_number_of_unknown_scale_is_refused(importer):
    """1 of a named score may be the worst of five: a rule must say it, and nothing is written until then."""
    run = {"id": "r1", "run_type": "llm", "inputs": {"messages": ASK}, "outputs": response()}
    said = {"id": "f1", "run_id": "r1", "key": "thumb", "score": 1, "feedback_source": {"type": "api"}}
    path = importer.file("runs.jsonl", [{"feedback": said, "run": run}])
    result = importer.run("langsmith", path, "--out", importer.out)
    assert result.code == 1
    assert "runs.jsonl, record 1: thumb is 1: a number on an unknown scale" in result.err
    assert [p.name for p in importer.folder.iterdir()] == ["runs.jsonl"]


def test_phoenix(importer):
    """Annotations of people count, also as emoji; those of models and programs are left out."""

    def row(name, notes):
        answer = {"messages": [{"role": "assistant", "content": "Yes."}]}
        return {"id": name, "input": {"messages": ASK}, "output": answer, "metadata": {"annotations": {"thumb": notes}}}

    note = {"label": "👍", "score": 1, "annotator_kind": "HUMAN", "user_id": "u"}
    rows = [
        row("1", [note]), row("2", [{**note, "label": "thumbs-down", "score": 0}]),
        row("3", [{**note, "annotator_kind": "LLM"}]), row("4", []),
    ]  # fmt: skip
    made = importer("phoenix", rows)
    assert [label for *_, label in made.talks] == [True, False]
    assert made.left_out == {"rated by a model or a program": 1, "no rating": 1}


def test_helicone(importer):
    """Ratings are booleans; failed requests are out; an export without bodies is refused."""
    row = {
        "request_id": "q1", "request_user_id": "u", "request_model": "mini", "request_body": {"messages": ASK},
        "response_status": 200, "response_body": response(), "feedback_rating": True, "feedback_id": "f",
    }  # fmt: skip
    rows = [
        row, {**row, "request_id": "q2", "feedback_rating": False}, {**row, "request_id": "q3", "feedback_rating": None},
        {**row, "request_id": "q4", "response_status": 500},
    ]  # fmt: skip
    made = importer("helicone", rows)
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "Yes.", False)]
    assert made.left_out == {"no rating": 1, "failed answer": 1}
    path = importer.file("bare.jsonl", [{"request_id": "q", "response_status": 200, "request_body": {}}])
    assert "--include-body" in importer.run("helicone", path, "--out", importer.folder / "o.jsonl").err


def test_argilla(importer):
    """Submitted answers count, drafts and models' suggestions don't; annotators who disagree are counted."""
    base = {
        "id": "1", "prompt": ASK, "response": "Yes.", "thumb.responses.users": ["a", "b"],
        "thumb.responses.status": ["submitted", "draft"], "thumb.suggestion": "down",
    }  # fmt: skip
    both = ["submitted", "submitted"]
    rows = [
        {**base, "thumb.responses": ["up", "down"]},
        {**base, "id": "2", "thumb.responses": ["up", "down"], "thumb.responses.status": both},
        {**base, "id": "3", "thumb.responses": None, "thumb.responses.users": None, "thumb.responses.status": None},
    ]
    made = importer("argilla", rows)
    assert made.talks == [(ASKED, "Yes.", True)]
    assert made.left_out == {"annotators disagree, without a majority": 1, "no rating": 1}
    nested = {
        "id": "4", "fields": {"prompt": ASK, "response": "No."}, "metadata": {},
        "responses": {"thumb": [{"value": "down", "user_id": "a"}]}, "suggestions": {"thumb": {"value": "up"}},
    }  # fmt: skip
    assert importer("argilla", {"records.json": [nested]}, "--force").talks == [(ASKED, "No.", False)]


def test_label_studio(importer):
    """A pairwise choice gives both sides, stars need a rule, and skipped tasks are counted."""
    pair = {"from_name": "cmp", "to_name": "a,b", "type": "pairwise", "value": {"selected": "right"}}
    stars = {"from_name": "stars", "to_name": "a", "type": "rating", "value": {"rating": 2}}
    task = {"id": 1, "data": {"q": "Is it ripe?", "one": "Yes.", "two": "No."}, "predictions": []}
    tasks = [
        {**task, "annotations": [{"id": 5, "completed_by": 3, "was_cancelled": False, "result": [pair, stars]}]},
        {**task, "id": 2, "annotations": [{"id": 6, "completed_by": 3, "was_cancelled": True, "result": [pair]}]},
        {**task, "id": 3, "annotations": []},
    ]
    columns = [f"--column={c}" for c in ("prompt=data.q", "left=data.one", "right=two", "completion=one")]
    rules = ("--desirable", ">=4", "--undesirable", "<=2")
    made = importer("label-studio", {"project.json": tasks}, *columns, *rules)
    assert made.talks == [(ASKED, "Yes.", False), (ASKED, "No.", True), (ASKED, "Yes.", False)]
    assert made.left_out == {"skipped by the annotator": 1, "no rating": 1}


def test_anythingllm(importer):
    """GOOD and BAD count; the export without ratings is refused."""
    row = {
        "id": 1,
        "prompt": "Is it ripe?",
        "response": "Yes.",
        "workspace": "Shed",
        "username": "ann",
        "rating": "GOOD",
    }
    rows = [row, {**row, "id": 2, "rating": "BAD"}, {**row, "id": 3, "rating": "--"}]
    made = importer("anythingllm", {"chats.json": rows})
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "Yes.", False)]
    assert made.left_out == {"no rating": 1}
    del row["rating"]
    path = importer.file("bare.jsonl", [row])
    assert "has lost the ratings" in importer.run("anythingllm", path, "--out", importer.folder / "o.jsonl").err


def test_dify(importer):
    """The rows stand in an object; an answer that the exporter cut is left out, and a long one that it did not is not."""
    row = {
        "feedback_id": "1", "conversation_id": "c", "message_id": "m1", "user_query": "Is it ripe?", "ai_response": "Yes.",
        "feedback_rating": "👍", "feedback_rating_raw": "like", "feedback_source": "user", "from_end_user_id": "e",
        "feedback_date": "2026-10-01 10:00:00",
    }  # fmt: skip
    rows = [
        row, {**row, "feedback_id": "2", "message_id": "m2", "feedback_rating_raw": "dislike", "ai_response": "y" * 507 + "..."},
        {**row, "feedback_id": "3", "message_id": "m3", "ai_response": "y" * 500 + "..."},
    ]  # fmt: skip
    made = importer("dify", {"dify.json": {"export_info": {"total_records": 3}, "feedback_data": rows}})
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "y" * 507 + "...", False)]
    (reason,) = made.left_out
    assert reason.startswith("cut by the exporter at 500 characters")
    assert made.account["records"] == 3


def test_librechat(importer):
    """The tree is walked by parentMessageId; text may stand in content; mongo's dates are read."""
    root = "00000000-0000-0000-0000-000000000000"
    base = {"conversationId": "c", "error": False, "unfinished": False, "createdAt": {"$date": "2026-10-01T10:00:00Z"}}
    ask = {**base, "messageId": "m1", "parentMessageId": root, "isCreatedByUser": True, "text": "Is it ripe?"}
    reply = {
        **base, "messageId": "m2", "parentMessageId": "m1", "isCreatedByUser": False, "text": "", "model": "mini",
        "content": [{"type": "text", "text": "Yes."}], "feedback": {"rating": "thumbsUp", "tag": "accurate_reliable"},
    }  # fmt: skip
    other = {**reply, "messageId": "m3", "text": "No.", "content": None, "feedback": {"rating": "thumbsDown"}}
    cut = {**reply, "messageId": "m4", "unfinished": True}
    made = importer("librechat", {"messages.jsonl": [ask, reply, other, cut]})
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "No.", False)]
    assert made.rows[0]["origin"]["time"] == "2026-10-01T10:00:00Z"
    assert made.left_out == {"looked up for other records: no rating of its own": 1, "unfinished answer": 1}


def test_chat_ui(importer):
    """Scores stand on messages; behind a regenerated answer the flat list has lost which branch went on."""
    ask, yes = {"from": "user", "content": "Is it ripe?"}, {"from": "assistant", "content": "Yes.", "score": 1}
    again = [ask, {"from": "assistant", "content": "Hm."}, {**yes, "score": -1}]
    rows = [
        {"title": "A", "messages": [ask, yes]},
        {"title": "B", "messages": again},
        {"title": "C", "messages": [ask]},
    ]
    made = importer("chat-ui", rows)
    assert made.talks == [(ASKED, "Yes.", True)]
    assert made.left_out == {"regenerated answers whose branches the export has lost": 1, "no rating": 1}


def test_chainlit(importer):
    """Steps of people and assistant in the order of time make the prompt; those of tools do not."""
    step = {"threadId": "t", "parentId": None, "name": "x", "input": "", "output": ""}
    steps = [
        {**step, "id": "2", "type": "assistant_message", "output": "Yes.", "createdAt": "2026-10-01T10:00:02Z"},
        {**step, "id": "1", "type": "user_message", "output": "Is it ripe?", "createdAt": "2026-10-01T10:00:00Z"},
        {**step, "id": "3", "type": "run", "output": "…", "createdAt": "2026-10-01T10:00:01Z"},
    ]
    said = [{"id": "f", "forId": "2", "value": 0, "comment": None}, {"id": "g", "forId": "9", "value": 1}]
    made = importer("chainlit", {"steps.json": steps, "feedbacks.json": said})
    assert made.talks == [(ASKED, "Yes.", False)]
    assert made.left_out == {
        "looked up for other records: no rating of its own": 3, "the conversation is not in the export": 1,
    }  # fmt: skip


def test_chatgpt(importer):
    """Both spellings of a thumb; the tree's rated branch; images are counted."""

    def node(name, parent, role, text, kind="text"):
        content = {"content_type": kind, "parts": [text]}
        message = {"id": name, "author": {"role": role}, "content": content, "metadata": {"model_slug": "mini"}}
        return {"id": name, "parent": parent, "children": [], "message": message}

    nodes = [
        {"id": "root", "parent": None, "message": None}, node("q", "root", "user", "Is it ripe?"),
        node("a", "q", "assistant", "Yes."), node("b", "q", "assistant", "No."),
        node("p", "root", "user", "", "multimodal_text"), node("c", "p", "assistant", "A pear."),
    ]  # fmt: skip
    talks = [{"conversation_id": "c1", "current_node": "a", "mapping": {n["id"]: n for n in nodes}}]
    said = {
        "id": "a",
        "conversation_id": "c1",
        "user_id": "u",
        "rating": "thumbs_up",
        "content": "{}",
        "create_time": "2026-10-01T10:00:00",
    }
    ratings = [said, {**said, "id": "b", "rating": "thumbsDown"}, {**said, "id": "c"}]
    made = importer("chatgpt", {"message_feedback.json": ratings, "conversations.json": talks})
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "No.", False)]
    assert made.left_out == {
        "looked up for other records: no rating of its own": 1,
        "image, file or retrieved text that the export does not hold as text": 1,
    }


def test_tensorzero(importer):
    """The last value of a metric counts; a demonstration gives two rows; feedback on an episode is not spread."""
    inference = {
        "id": "i1", "function_name": "f", "variant_name": "v", "episode_id": "e1", "timestamp": "2026-10-01T10:00:00Z",
        "input": {"system": "Be brief.", "messages": [{"role": "user", "content": [{"type": "text", "text": "Is it ripe?"}]}]},
        "output": [{"type": "text", "text": "Yes."}],
    }  # fmt: skip
    thumb = {"id": "b1", "target_id": "i1", "metric_name": "thumb", "value": True, "timestamp": "2026-10-01T10:01:00Z"}
    said = [
        thumb, {**thumb, "id": "b2", "value": False, "timestamp": "2026-10-01T10:02:00Z"},
        {**thumb, "id": "b3", "target_id": "e1"},
        {"id": "d", "inference_id": "i1", "value": '[{"type":"text","text":"Not yet."}]', "timestamp": "2026-10-01T10:03:00Z"},
        {"id": "k", "target_id": "i1", "value": "fine", "timestamp": "2026-10-01T10:03:00Z"},
    ]  # fmt: skip
    made = importer("tensorzero", {"ChatInference.jsonl": [inference], "feedback.jsonl.json": said})
    asked = f"system: Be brief. | {ASKED}"
    assert made.talks == [(asked, "Yes.", False), (asked, "Not yet.", True), (asked, "Yes.", False)]
    assert made.left_out == {
        "looked up for other records: no rating of its own": 1, "superseded by a later rating of the same answer": 1,
        "rating of a whole episode, not of one answer": 1, "a comment, no rating": 1,
    }  # fmt: skip


def test_mlflow(importer):
    """Assessments of people count, a judge's do not; a trace's request may be JSON text."""
    trace = {
        "trace_id": "t1",
        "request": json.dumps({"model": "mini", "messages": ASK}),
        "response": json.dumps(response()),
    }
    said = {"trace_id": "t1", "name": "thumb", "value": True, "source": {"source_type": "HUMAN", "source_id": "ann"}}
    judge = {**said, "source": {"source_type": "LLM_JUDGE", "source_id": "j"}}
    made = importer("mlflow", {"traces.jsonl": [trace], "assessments.jsonl": [said, judge]})
    assert made.talks == [(ASKED, "Yes.", True)]
    assert made.left_out["rated by a model or a program"] == 1


def test_openai_dpo(importer):
    """Both outputs become rows, with the tools of the request."""
    tool = {
        "type": "function",
        "function": {"name": "look", "description": "", "parameters": {"type": "object", "properties": {}}},
    }
    row = {
        "input": {"messages": ASK, "tools": [tool], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "Yes."}],
        "non_preferred_output": [{"role": "assistant", "content": "No."}],
    }
    made = importer("openai-dpo", [row])
    assert made.talks == [(ASKED, "Yes.", True), (ASKED, "No.", False)]
    assert made.rows[0]["tools"] == [tool]
    assert made.account["more_verdicts"] == 1


def test_llama_factory(importer):
    """instruction and input are one question, history goes before it."""
    row = {
        "instruction": "Is it ripe?",
        "input": "A pear.",
        "output": "Yes.",
        "kto_tag": True,
        "history": [["Hi", "Hello"]],
    }
    pair = {"instruction": "Is it ripe?", "chosen": "Yes.", "rejected": "No.", "system": "Be brief."}
    made = importer("llama-factory", {"rows.json": [row, pair]})
    assert made.talks == [
        ("user: Hi | assistant: Hello | user: Is it ripe?\nA pear.", "Yes.", True),
        (f"system: Be brief. | {ASKED}", "Yes.", True),
        (f"system: Be brief. | {ASKED}", "No.", False),
    ]


def test_ms_swift(importer):
    """A label is of the last answer; a rejected response is a second one."""
    talk = [*ASK, {"role": "assistant", "content": "Yes."}]
    made = importer("ms-swift", [{"messages": talk, "label": False}, {"messages": talk, "rejected_response": "No."}])
    assert made.talks == [(ASKED, "Yes.", False), (ASKED, "Yes.", True), (ASKED, "No.", False)]


def test_logged_text_that_is_json_is_read_as_the_conversation(importer):
    """Exports hold inputs as JSON text: it is never taken for the question. An app's own shape is refused."""
    row = {"id": "1", "timestamp": "2026-10-01", "userId": "u", "sessionId": "s", "thumb": [True], "metadata": {}}
    row |= {"input": json.dumps({"model": "mini", "messages": ASK, "temperature": 0}), "output": json.dumps(response())}
    assert importer("langfuse", [row]).talks == [(ASKED, "Yes.", True)]
    path = importer.file("odd.jsonl", [{**row, "input": {"args": ["Is it ripe?"], "kwargs": {}}}])
    result = importer.run("langfuse", path, "--out", importer.folder / "o.jsonl")
    assert "odd.jsonl, record 1: the input is an object of 'args', 'kwargs', not text or messages" in result.err


def test_mlflow_traces_as_they_are_downloaded(importer):
    """The root span holds request and response, the info the assessments; an overridden one does not count."""
    span = {"parent_span_id": None, "attributes": {
        "mlflow.spanInputs": json.dumps({"messages": ASK}), "mlflow.spanOutputs": json.dumps(response())}}  # fmt: skip
    said = {
        "assessment_id": "1", "assessment_name": "thumb", "feedback": {"value": False}, "trace_id": "t",
        "source": {"source_type": "HUMAN", "source_id": "ann"}, "create_time": "2026-10-01T10:00:00Z",
    }  # fmt: skip
    old = {**said, "assessment_id": "0", "feedback": {"value": True}, "valid": False}
    traces = [{"info": {"trace_id": "t", "assessments": [old, said]}, "data": {"spans": [span]}}]
    made = importer("mlflow", {"traces.json": traces})
    assert made.talks == [(ASKED, "Yes.", False)]
    assert made.left_out == {"superseded by a later rating of the same answer": 1}


def test_openai_log_joined_by_the_id_of_the_response(importer):
    """Ratings in a CSV are text; --join takes a path; a log with one id twice is refused."""
    log = [{"request": {"messages": ASK}, "response": response()}]
    ratings = importer.folder / "ratings.csv"
    ratings.write_text("id,rating\nr,-1\n", encoding="utf-8")
    path = importer.file("log.jsonl", log)
    assert importer.run("openai-log", path, ratings, "--out", importer.out).code == 0
    assert json.loads(importer.out.read_text(encoding="utf-8"))["label"] is False
    path = importer.file("log.jsonl", [*log, {"request": {"messages": ASK}, "response": response("No.")}])
    result = importer.run("openai-log", path, ratings, "--out", importer.out, "--force")
    assert "ratings.csv, record 1: two different records have the id 'r'" in result.err


def test_questions_that_lost_what_was_before_them_are_counted(importer):
    """AnythingLLM's export holds single questions."""
    row = {
        "id": 1,
        "prompt": "And the skin?",
        "response": "Eat it.",
        "workspace": "w",
        "username": "a",
        "rating": "GOOD",
    }
    made = importer("anythingllm", [row, {**row, "id": 2, "prompt": "Is it ripe?"}])
    assert made.account["follow_ups"] == 1
    assert "1 of 2 questions look like follow-ups" in made.result.err


def test_phoenix_labels_beside_a_rule_for_numbers(importer):
    """A rule for numbers reads the score, not the label beside it."""
    note = {"label": "👍", "score": 0.9, "annotator_kind": "HUMAN", "user_id": "u"}
    row = {"id": "1", "input": {"messages": ASK}, "output": "Yes.", "metadata": {"annotations": {"thumb": [note]}}}
    assert importer("phoenix", [row], "--desirable", ">=0.5", "--undesirable", "<0.5").talks == [(ASKED, "Yes.", True)]


def test_what_users_wrote_is_kept(importer):
    """Beside the row, in `origin`; a record without a comment has no such key."""
    thumb = {"id": "a", "request": {"messages": ASK}, "response": response(), "rating": "up"}
    made = importer("openai-log", [{**thumb, "comment": " in German, please "}, {**thumb, "id": "b", "comment": ""}])
    assert [row["origin"].get("comment") for row in made.rows] == ["in German, please", None]
    assert "comment" not in made.rows[1]["origin"]


def test_what_users_picked_and_wrote_is_one_comment(importer):
    """LibreChat has a tag and a text."""
    asked = {
        "messageId": "m1", "conversationId": "c", "parentMessageId": None, "isCreatedByUser": True, "text": "Is it ripe?",
    }  # fmt: skip
    said = {"rating": "thumbsDown", "tag": "inaccurate", "text": "It is not."}
    rated = {
        "messageId": "m2", "conversationId": "c", "parentMessageId": "m1", "isCreatedByUser": False, "text": "Yes.",
        "feedback": said, "createdAt": "2026-10-01T10:00:00Z",
    }  # fmt: skip
    made = importer("librechat", [asked, rated])
    assert made.rows[0]["origin"]["comment"] == "inaccurate: It is not."
