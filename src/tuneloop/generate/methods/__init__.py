"""The methods by name: what each goes through, what it needs of a teacher, and its function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tuneloop.generate.candidate import Candidate
from tuneloop.generate.methods.answers import preference, regenerate
from tuneloop.generate.methods.document import document
from tuneloop.generate.methods.evolve import evolve
from tuneloop.generate.methods.magpie import magpie
from tuneloop.generate.methods.persona import persona
from tuneloop.generate.methods.reword import paraphrase, refusals
from tuneloop.generate.methods.self_instruct import self_instruct
from tuneloop.generate.methods.turns import multi_turn
from tuneloop.generate.methods.weak import weak_slices
from tuneloop.records import Example


@dataclass(frozen=True)
class Method:
    """`through`: the inputs that candidates go through one by one ('' draws from seeds or needs none: no end).

    `inputs`: what must be given. `calls`: calls of a candidate, for the estimate. `similar`: whether its prompts are
    held against the pool (not where they are the seeds' own, or meant to be near them).
    """

    make: Callable[[Candidate], Awaitable[list[Example]]]
    through: str
    inputs: str
    calls: int
    needs: tuple[str, ...] = ("chat",)
    similar: bool = True


METHODS: dict[str, Method] = {
    "self_instruct": Method(self_instruct, "", "seeds", 1),
    "evolve": Method(evolve, "", "seeds", 3),
    "magpie": Method(magpie, "", "", 2, ("chat", "completions")),
    "documents": Method(document, "documents", "documents", 1),
    "personas": Method(persona, "", "seeds", 3),
    "weak_slices": Method(weak_slices, "weak", "weak", 1, similar=False),
    "regenerate": Method(regenerate, "seeds", "seeds", 5, similar=False),
    "preference": Method(preference, "seeds", "seeds", 5, similar=False),
    "paraphrase": Method(paraphrase, "seeds", "seeds", 1, similar=False),
    "refusals": Method(refusals, "seeds", "seeds", 1),
    "multi_turn": Method(multi_turn, "seeds", "seeds", 5, similar=False),
}
