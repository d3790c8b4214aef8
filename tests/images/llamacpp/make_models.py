# ruff: noqa: INP001 -- a program of the image, not a module
"""Write model files of a few megabytes: random weights, the same ones each time.

They answer nonsense, but load, answer, stream, embed and rank as real ones do.
Usage: make_models.py DIRECTORY
"""

import math
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

SEED = 20260901
# So long that a stream lasts as long as a test wants; a token takes 64 bytes of memory.
CHAT_CONTEXT = 131072
TEXT_CONTEXT = 2048
WORDS = (
    "and the gate house stands where roads meet so all who come may rest here until morning light "
    "brings carts with bread salt iron wool stone while bells ring over water under open sky again"
)
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# As in GPT-2: each byte has a character that can be printed.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]


class Weights:
    """Tensors of one model file."""

    def __init__(self, writer: GGUFWriter, seed: int) -> None:
        """Fill `writer`; `seed` decides what is random."""
        self._writer = writer
        self._random = np.random.default_rng(seed)

    def draw(self, rows: int, columns: int) -> np.ndarray:
        """Give a matrix of variance 1, made of integers: the same on every processor."""
        return self._random.integers(-1024, 1025, (rows, columns)) * (math.sqrt(3) / 1024)

    def random(self, name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        """Add a matrix that keeps the size of what it is applied to, times `scale`."""
        self.add(name, self.draw(rows, columns) * (scale / math.sqrt(columns)))

    def add(self, name: str, values: np.ndarray) -> None:
        """Add a tensor as it is."""
        self._writer.add_tensor(name, values.astype(np.float32))

    def norm(self, name: str, size: int) -> None:
        """Add a normalisation that changes nothing."""
        self.add(f"{name}.weight", np.ones(size))
        self.add(f"{name}.bias", np.zeros(size))


def byte_tokens() -> list[str]:
    """Give the names of the 256 bytes in GPT-2's alphabet."""
    others = iter(range(256, 512))
    return [chr(byte) if byte in PRINTABLE else chr(next(others)) for byte in range(256)]


def chat(path: Path) -> None:
    """Write a Llama that says its words for ever: bytes and ends of text are never the likeliest."""
    size, inner, layers = 64, 256, 2
    space = byte_tokens()[ord(" ")]
    alphabet = [*byte_tokens(), f"{space}t"]
    words = [f"{space}{word}" for word in dict.fromkeys(WORDS.split())]
    special = ["<|start|>", "<|end|>"]
    tokens = [*alphabet, *words, *special]
    kinds = [TokenType.NORMAL] * (len(tokens) - 2) + [TokenType.CONTROL] * 2

    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny-chat")
    writer.add_context_length(CHAT_CONTEXT)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(size // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{space} t"])
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(TEMPLATE)

    weights = Weights(writer, SEED)
    # The first number of a token's vector is the same all the way through: no layer writes to it.
    meaning = weights.draw(len(tokens), size)
    meaning[:, 0] = 4
    weights.add("token_embd.weight", meaning)
    for layer in range(layers):
        block = f"blk.{layer}"
        weights.add(f"{block}.attn_norm.weight", np.ones(size))
        weights.add(f"{block}.ffn_norm.weight", np.ones(size))
        weights.random(f"{block}.attn_q.weight", size, size)
        weights.random(f"{block}.attn_k.weight", size // 4, size)
        weights.random(f"{block}.attn_v.weight", size // 4, size)
        weights.random(f"{block}.ffn_gate.weight", inner, size)
        weights.random(f"{block}.ffn_up.weight", inner, size)
        for name, width in (("attn_output", size), ("ffn_down", inner)):
            values = weights.draw(size, width) / math.sqrt(width)
            values[0] = 0
            weights.add(f"{block}.{name}.weight", values)
    weights.add("output_norm.weight", np.ones(size))
    # What must not be said gets a large negative share of that first number.
    output = weights.draw(len(tokens), size) / math.sqrt(size)
    output[:, 0] = -1000
    output[len(alphabet) : len(alphabet) + len(words), 0] = 0
    weights.add("output.weight", output)
    finish(writer)


def text(path: Path, pooling: PoolingType) -> None:
    """Write a BERT, one vector for a text: for embeddings, or with a head that ranks."""
    size, inner, layers = 64, 128, 2
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [chr(code) for code in range(33, 127)]
    # The first piece of a word is marked, as in llama.cpp's own conversion.
    tokens = [*marks, *(f"\u2581{each}" for each in characters), *characters]
    kinds = [TokenType.CONTROL] * len(marks) + [TokenType.NORMAL] * (len(tokens) - len(marks))

    writer = GGUFWriter(path, "bert")
    writer.add_name(path.stem)
    writer.add_context_length(TEXT_CONTEXT)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(pooling)
    writer.add_vocab_size(len(tokens))
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=True)

    weights = Weights(writer, SEED + pooling)
    weights.random("token_embd.weight", len(tokens), size, scale=math.sqrt(size))
    weights.random("token_types.weight", 2, size, scale=0.1)
    weights.random("position_embd.weight", TEXT_CONTEXT, size, scale=0.1)
    weights.norm("token_embd_norm", size)
    for layer in range(layers):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights.random(f"{block}.{name}.weight", size, size)
            weights.add(f"{block}.{name}.bias", np.zeros(size))
        weights.norm(f"{block}.attn_output_norm", size)
        weights.random(f"{block}.ffn_up.weight", inner, size)
        weights.add(f"{block}.ffn_up.bias", np.zeros(inner))
        weights.random(f"{block}.ffn_down.weight", size, inner)
        weights.add(f"{block}.ffn_down.bias", np.zeros(size))
        weights.norm(f"{block}.layer_output_norm", size)
    if pooling is PoolingType.RANK:
        weights.random("cls.weight", size, size)
        weights.add("cls.bias", np.zeros(size))
        weights.random("cls.output.weight", 1, size)
        weights.add("cls.output.bias", np.zeros(1))
    finish(writer)


def finish(writer: GGUFWriter) -> None:
    """Write all and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(directory: Path) -> None:
    """Write the three files."""
    directory.mkdir(parents=True)
    chat(directory / "tiny-chat.gguf")
    text(directory / "tiny-embed.gguf", PoolingType.MEAN)
    text(directory / "tiny-rerank.gguf", PoolingType.RANK)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
