"""Magpie (Xu et al. 2024): an aligned model that is shown only the opening of a user turn writes one itself.

The template `magpie` holds that opening in the teacher's own chat format, so a server must take raw text.
"""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, Dropped, exchange
from tuneloop.records import Example

# Queries want a higher temperature than answers, or they repeat.
QUERY_TEMPERATURE = 1.0
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "</s>", "<|endoftext|>", "[/INST]", "<|im_start|>")


async def magpie(c: Candidate) -> list[Example]:
    opening = c.shop.templates.render("magpie") + "\n"
    found = await c.send("magpie", [], prompt=opening, stop=ENDS[:4], temperature=QUERY_TEMPERATURE)
    query = found.text
    for end in ENDS:
        query = query.split(end)[0]
    if not query.strip():
        raise Dropped("empty", "the model wrote no user turn")
    answer = await c.ask("answer", instruction=query.strip())
    return [c.row([], messages=exchange(query, answer))]
