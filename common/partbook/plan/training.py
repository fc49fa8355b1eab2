"""What a plan may ask a node to do with its recordings: with noise that the members add together, with each member's
own, or with none.

    DistributedDp   per-recording updates, clipped, summed over all members; each adds a share of the noise   (default)
    LocalDp         DP-SGD at each member, whose own noise protects it whatever its peers do
    PlainTraining   no noise: ε is infinite; a label's policy refuses it unless told otherwise

The sizes by which sums are divided are public constants of the plan, never true counts (PROTOCOL §3).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Steps = Annotated[int, Field(ge=1, le=10_000)]
Rate = Annotated[float, Field(gt=0, le=1)]
Clip = Annotated[float, Field(gt=0, le=1e6)]
Multiplier = Annotated[float, Field(ge=0.05, le=1000)]
Batch = Annotated[float, Field(gt=0, le=1e9)]
WindowCount = Annotated[int, Field(ge=1, le=256)]


class PlainTraining(BaseModel):
    """A few AdamW steps on all of a node's recordings. Nothing is said about what the sum tells.

    Attributes:
        steps: optimiser steps.
        batch: windows a step.
        learning_rate: AdamW's.
        clip: L2 norm C to which the update is clipped, over all trained parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["plain"] = "plain"
    steps: Steps = 8
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    learning_rate: Rate = 3e-3
    clip: Clip = 3.0


class DistributedDp(BaseModel):
    """One clipped update a sampled recording; the members' noise adds up to what one recording can hide in.

    Attributes:
        noise_multiplier: σ: the noise of any `threshold − colluders` members together, in standard deviations over C.
        sampling: probability q with which each recording is drawn, by itself, in each round.
        batch: recordings expected in the whole sum, which it is divided by: a public constant.
        colluders: members who may subtract their own noise from the sum; noise is calibrated to the others.
        windows: m, windows of each drawn recording.
        steps: k, gradient steps on each recording alone; with 1 the update is the recording's mean gradient.
        learning_rate: of those steps, where there are several.
        clip: C, L2 bound of one recording's update in units of the gradient, over all trained parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["distributed"] = "distributed"
    noise_multiplier: Multiplier
    sampling: Annotated[float, Field(gt=0, le=1)]
    batch: Batch
    colluders: Annotated[int, Field(ge=0)] = 0
    windows: WindowCount = 1
    steps: Annotated[int, Field(ge=1, le=100)] = 1
    learning_rate: Rate = 1e-2
    clip: Clip = 1.0


class LocalDp(BaseModel):
    """DP-SGD (Abadi et al. 2016) at each node with its own noise; what it leads to is clipped and added up.

    Attributes:
        noise_multiplier: σ of each step's noise, over C.
        sampling: probability q with which each recording is drawn in each step.
        batch: recordings expected in a step of one member, which its sum is divided by: a public constant.
        steps: DP-SGD steps a round.
        windows: m, windows of each drawn recording.
        learning_rate: of the steps.
        clip: C, L2 bound of one recording's gradient in a step.
        bound: L2 norm to which the round's update is clipped before it is added up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"] = "local"
    noise_multiplier: Multiplier
    sampling: Annotated[float, Field(gt=0, le=1)]
    batch: Batch
    steps: Steps = 1
    windows: WindowCount = 1
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    clip: Clip = 1.0
    bound: Clip = 3.0


Training: TypeAlias = Annotated[PlainTraining | DistributedDp | LocalDp, Field(discriminator="kind")]
