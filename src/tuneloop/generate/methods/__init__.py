"""The methods by name: what each goes through, what it needs of a teacher, and its function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tuneloop.config.generate import GenerateConfig
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

# Methods that use the verifiers or the judge to choose among answers: these need no second look.
CHOSEN = ("regenerate", "preference")


@dataclass(frozen=True)
class Method:
    """`through`: the inputs that candidates go through one by one ('' draws from seeds or needs none: no end).

    `inputs`: what must be given. `calls`: calls of a candidate, repairs apart, for the estimate. `similar`: whether
    its prompts are held against the pool (not where they are the seeds' own, or meant to be near them).
    """

    make: Callable[[Candidate], Awaitable[list[Example]]]
    through: str
    inputs: str
    calls: Callable[[GenerateConfig], int]
    needs: tuple[str, ...] = ("chat",)
    similar: bool = True


def _tried(config: GenerateConfig) -> int:
    """Answers, and a grade of each where no verifier decides."""
    return config.best_of if config.verify else 2 * config.best_of


METHODS: dict[str, Method] = {
    "self_instruct": Method(self_instruct, "", "seeds", lambda c: 1),
    "evolve": Method(evolve, "", "seeds", lambda c: 3),
    "magpie": Method(magpie, "", "", lambda c: 2, ("chat", "completions")),
    "documents": Method(document, "documents", "documents", lambda c: 1),
    "personas": Method(persona, "", "seeds", lambda c: 3),
    "weak_slices": Method(weak_slices, "weak", "weak", lambda c: 1, similar=False),
    "regenerate": Method(regenerate, "seeds", "seeds", _tried, similar=False),
    "preference": Method(preference, "seeds", "seeds", _tried, similar=False),
    "paraphrase": Method(paraphrase, "seeds", "seeds", lambda c: 1, similar=False),
    "refusals": Method(refusals, "seeds", "seeds", lambda c: 1),
    "multi_turn": Method(multi_turn, "seeds", "seeds", lambda c: 2 * (c.turns - 1), similar=False),
}
