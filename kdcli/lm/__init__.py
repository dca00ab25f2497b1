"""Language models, for generator plugins too: fine-tuning, sampling in a batch that stays full, and their options."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]


class LanguageModelOptions(BaseModel):
    """How a language model is fine-tuned (Tang, Lu, Lin 2019, the recipe for GPT-2)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
    no_effect: ClassVar = frozenset({"save_steps"})

    max_length: Annotated[int, Field(ge=2)] = 128
    """Longest text in tokens, its end included: longer ones are cut in training, and rejected in sampling."""
    lr: Annotated[float, Field(gt=0)] = 5e-5
    """Learning rate of AdamW, at its highest."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    """AdamW's weight decay, of all parameters but biases and normalisations."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the updates over which the learning rate rises, before it falls in a straight line."""
    epochs: Positive = 3
    """Passes over the training texts."""
    max_steps: Annotated[int, Field(ge=0)] = 0
    """Stop after so many updates; 0 = no limit."""
    batch_size: Positive | Literal["auto"] = 48
    """Texts an update; `auto` is 48. If memory runs out, fewer go at once, and their gradients add up."""
    gradient_accumulation: Positive = 1
    """Compute an update in so many pieces, one after the other: less memory, the same result."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them: less memory, a third more time."""
    save_steps: Annotated[int, Field(ge=0)] = 0
    """Updates between resume points; 0 = at the end of each epoch."""
