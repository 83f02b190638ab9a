"""Open WebUI's feedback export."""

import copy

from kto_release.feedback.layouts import parse

SIBLING = {
    "id": "s4",
    "parentId": "q2",
    "childrenIds": [],
    "role": "assistant",
    "content": "Use salt.",
    "model": "phi4",
    "done": True,
}


def node(name, parent, role, content, **more):
    return {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": content, **more}


def record(rating=1, **more):
    """A rating of the second answer, in a tree whose current branch is another one."""
    nodes = [
        node("q1", None, "user", "My soup is bland."),
        node("a1", "q1", "assistant", "What is in it?", model="qwen3", done=True),
        node("a1b", "q1", "assistant", "Throw it away.", model="qwen3", done=True),
        node("q2", "a1", "user", "Only leeks."),
        node("a2", "q2", "assistant", "Add a rind of cheese.", model="qwen3", done=True),
    ]
    made = {
        "id": "f1", "user_id": "u1", "version": 0, "type": "rating",
        "data": {"rating": rating, "model_id": "qwen3", "sibling_model_ids": None, "reason": "", "comment": ""},
        "meta": {"arena": False, "model_id": "qwen3", "message_id": "a2", "message_index": 4, "chat_id": "c1"},
        "snapshot": {"chat": {"id": "c1", "chat": {
            "params": {"system": "You cook."},
            "history": {"currentId": "a1b", "messages": {n["id"]: n for n in nodes}}, "messages": nodes[:1],
        }}},
        "created_at": 1750000000, "updated_at": 1750000060,
    }  # fmt: skip
    return {**made, **more}


def nodes_of(made):
    return made["snapshot"]["chat"]["chat"]["history"]["messages"]


def test_the_rated_branch_with_its_system_prompt_becomes_the_prompt(importer):
    """The ancestors of the rated message are the prompt: not the sibling, not the current branch, not messages[]."""
    made = importer("open-webui", {"feedback-history-export-1.json": [record()]})
    assert made.talks == [
        (
            "system: You cook. | user: My soup is bland. | assistant: What is in it? | user: Only leeks.",
            "Add a rind of cheese.",
            True,
        )
    ]
    origin = made.rows[0]["origin"]
    assert origin.pop("user").startswith("hmac:")
    assert origin == {
        "source": "open-webui", "id": "f1", "conversation": "c1", "model": "qwen3", "time": "2025-06-15T15:07:40Z",
        "kind": "thumb", "by": "human",
    }  # fmt: skip


def test_rows_are_feedback(importer):
    """What is written is what training reads."""
    row = importer("open-webui", [record(-1)]).rows[0]
    (feedback,) = parse(row).feedback
    assert (feedback.messages[-1]["content"], feedback.completion, feedback.desirable) == (
        "Only leeks.",
        "Add a rind of cheese.",
        False,
    )


def test_every_rating_is_a_row_or_a_reason(importer):
    """Text ratings, none, 0, a deleted chat, an unfinished and a failed answer, files, lost parents: each is counted."""

    def changed(number, rating="1", **of_answer):
        made = record(rating, id=f"f{number}", user_id=f"u{number}")
        nodes_of(made)["a2"].update(of_answer)
        return made

    lost = changed(7)
    del nodes_of(lost)["q1"]
    with_file = changed(6)
    nodes_of(with_file)["q2"]["files"] = [{"type": "collection"}]
    made = importer(
        "open-webui",
        [
            changed(1, "-1"), changed(2, None), changed(3, 0), {**changed(4), "snapshot": None}, changed(5, done=False),
            with_file, lost, changed(8, content=" "), changed(9, error={"content": "boom"}),
        ],
    )  # fmt: skip
    assert [label for *_, label in made.talks] == [False]
    assert made.left_out == {
        "the conversation is not in the export": 2,
        "no rating": 1,
        "neutral rating": 1,
        "unfinished answer": 1,
        "image, file or retrieved text that the export does not hold as text": 1,
        "no text": 1,
        "failed answer": 1,
    }


def test_the_last_rating_of_an_answer_counts(importer):
    """A changed thumb counts once, by its time and not its place; a withdrawn one gives no row; users don't mix."""
    later = record(-1, id="f2", updated_at=1750000900)
    gone = [record(1, id="f3", user_id="u2"), record(None, id="f4", user_id="u2", updated_at=1750000900)]
    made = importer("open-webui", [later, record(1), *gone, record(1, id="f5", user_id="u3")])
    assert [(row["origin"]["id"], row["label"]) for row in made.rows] == [("f2", False), ("f5", True)]
    assert made.left_out == {
        "superseded by a later rating of the same answer": 1, "withdrawn later": 1, "no rating": 1,
    }  # fmt: skip


def test_an_arena_vote_gives_both_sides_where_the_tree_has_both(importer):
    """The sibling of the voted answer gets the other label; a draw and an absent sibling are counted."""
    vote = record()
    vote["meta"]["arena"] = True
    vote["data"]["sibling_model_ids"] = ["phi4"]
    alone = copy.deepcopy({**vote, "id": "f2", "user_id": "u2"})
    nodes_of(vote)["s4"] = SIBLING
    draw = copy.deepcopy({**vote, "id": "f3", "user_id": "u3"})
    draw["data"]["rating"] = 0
    made = importer("open-webui", [vote, alone, draw])
    assert [(row["completion"], row["label"], row["origin"]["model"]) for row in made.rows] == [
        ("Add a rind of cheese.", True, "qwen3"), ("Use salt.", False, "phi4"), ("Add a rind of cheese.", True, "qwen3"),
    ]  # fmt: skip
    assert made.left_out == {"arena answer that the export does not hold": 1, "draw": 1}


def test_thoughts_in_markup_get_their_own_key(importer):
    """<details type="reasoning"> is no part of the answer's text."""
    made = record()
    nodes_of(made)["a2"]["content"] = (
        '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> Umami.\n</details>\nAdd miso.'
    )
    (row,) = importer("open-webui", [made]).rows
    assert row["completion"] == [{"role": "assistant", "content": "Add miso.", "reasoning_content": "Umami."}]


def test_the_csv_export_is_refused(importer):
    """It has no text; the message says which export has."""
    path = importer.folder / "feedback.csv"
    path.write_text("id,user_id,chat_id,model_id,rating\nf1,u1,c1,qwen3,1\n", encoding="utf-8")
    result = importer.run("open-webui", path, "--out", importer.out)
    assert (result.code, importer.out.exists()) == (1, False)
    assert "export the feedback as JSON" in result.err


def test_the_older_export_of_chats(importer):
    """Every annotated message of a chat is a rating."""
    chat = record()["snapshot"]["chat"]["chat"]
    chat["history"]["messages"]["a2"]["annotation"] = {"rating": 1}
    chat["history"]["messages"]["a1b"]["annotation"] = {"rating": -1}
    made = importer("open-webui", {"chats.json": [{"id": "c1", "user_id": "u1", "chat": chat}]})
    assert [(completion, label) for _, completion, label in made.talks] == [
        ("Throw it away.", False),
        ("Add a rind of cheese.", True),
    ]
