"""The shortest request there is, by which a loaded model shows that it works."""

import argparse

from mlx_lm.server import (
    GenerationArguments,
    LogitsProcessorArguments,
    ModelDescription,
    SamplingArguments,
)


def one_token(args: argparse.Namespace) -> GenerationArguments:
    """The parameters of the shortest request there is."""
    return GenerationArguments(
        # As the handler describes it: another description would not join the same batch.
        model=ModelDescription(model=args.profile, draft="default_model", adapter=None),
        sampling=SamplingArguments(
            temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, xtc_probability=0.0, xtc_threshold=0.1
        ),
        logits=LogitsProcessorArguments(
            logit_bias=None,
            repetition_penalty=0.0,
            repetition_context_size=20,
            presence_penalty=0.0,
            presence_context_size=20,
            frequency_penalty=0.0,
            frequency_context_size=20,
        ),
        stop_words=[],
        max_tokens=1,
        num_draft_tokens=args.num_draft_tokens,
        logprobs=False,
        top_logprobs=-1,
        seed=None,
        chat_template_kwargs=None,
    )
