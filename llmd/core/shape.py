"""What the headers of a model say, as far as its size is concerned. `llmd.weights` reads them."""

from typing import Literal

from msgspec import Struct


Format = Literal["mlx", "gguf"]
Platform = Literal["linux", "darwin"]


class LayerCache(Struct, frozen=True):
    """What one layer keeps of one sequence.

    Attributes:
        key_elements: Numbers kept per token as keys (heads x dimension; the latent for MLA).
        value_elements: The same for values; 0 where values are a view of the keys.
        window_tokens: Only so many tokens are kept (sliding window); None keeps all.
        state_bytes: Kept whatever the length: recurrent and convolution state.
        scratch_bytes: Made of each token of a chunk where MLX has no kernel for a recurrence: on a
            CPU, copies of the state.
    """

    key_elements: int = 0
    value_elements: int = 0
    window_tokens: int | None = None
    state_bytes: int = 0
    scratch_bytes: int = 0


class ModelShape(Struct, frozen=True):
    """What the headers of a model say, as far as memory and `llmd-ctl models` are concerned.

    Attributes:
        format: `mlx` (a directory of safetensors) or `gguf`.
        architecture: The model type as the format calls it: `qwen3`, `llama`.
        weights_bytes: All tensors.
        parameters: How many weights, as far as packed ones can be counted.
        quantization: `4-bit`, `Q4_K_M`, `bf16`.
        layers: One entry for each layer.
        hidden: Width of the residual stream.
        intermediate: Width of the feed-forward layers; of one expert's where there are experts.
        heads: Attention heads (queries).
        head_dim: Width of one head's keys.
        vocab: Tokens in the vocabulary.
        context_tokens: What the model was trained for; 0 when it does not say.
        experts_used: Experts that one token passes through; 0 in a dense model.
        expanded: Numbers that a chunk makes anew of each token before it: keys and values of all
            heads, out of the latent; 0 without one, and where the engine computes on the latent.
        element_bytes: Bytes per number in activations, and so in MLX's key-value cache.
        files: Every file the engine reads weights from, in order.
        fingerprint: Changes when the files do: names, sizes, modification times.
        chat_template: Whether a chat template comes with it.
        abilities: Of `tools` and `reasoning`, what that template has words for.
        matrix_bytes: Bytes of the matrices by their type, in GGUF: `("Q4_K", 1024)`.
    """

    format: Format
    architecture: str
    weights_bytes: int
    parameters: int
    quantization: str
    layers: tuple[LayerCache, ...]
    hidden: int
    intermediate: int
    heads: int
    head_dim: int
    vocab: int
    context_tokens: int
    experts_used: int = 0
    expanded: int = 0
    element_bytes: int = 2
    files: tuple[str, ...] = ()
    fingerprint: str = ""
    chat_template: bool = False
    abilities: tuple[str, ...] = ()
    matrix_bytes: tuple[tuple[str, int], ...] = ()
