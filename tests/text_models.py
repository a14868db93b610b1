"""Tiny random models and tokenizers made on the fly; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_TEXT = "the capital of france is paris rome italy a film was good bad not very opec cut crude oil output who . , ?"
WORDS = _TEXT.split()
SMALL: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def words(*, pad: bool = True, side: str = "right") -> Any:
    """WordPiece with [CLS] and [SEP], as BERT's; fast."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: i for i, word in enumerate([*special, *WORDS, "##s", "##ing", "mini", "##ster", "'", "s"])}
    tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tok.normalizer = normalizers.Lowercase()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names: dict[str, Any] = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if pad:
        names["pad_token"] = "[PAD]"
    return PreTrainedTokenizerFast(tokenizer_object=tok, padding_side=side, model_max_length=64, **names)


def letters(*, pad: bool = True, side: str = "left", chat: bool = False) -> Any:
    """Byte-level BPE with <|end|>, as GPT-2's; fast."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>", "<|user|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tok.train_from_iterator(
        ["The capital of France is Paris. The capital of Italy is Rome. " + " ".join(WORDS)] * 20, trainer
    )
    names = {"eos_token": "<|end|>", "additional_special_tokens": ["<|user|>"]}
    if pad:
        names["pad_token"] = "<|end|>"
    made = PreTrainedTokenizerFast(tokenizer_object=tok, padding_side=side, **names)
    if chat:
        made.chat_template = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    return made


class Slow:
    """A tokenizer that tells nothing of offsets: words by spaces, endings by `##`."""

    is_fast = False
    pad_token_id, unk_token_id, cls_token_id, eos_token_id, mask_token_id = 0, 1, 2, None, None
    all_special_ids = (0, 2)
    padding_side = "right"

    def __init__(self) -> None:
        self.names = ["[PAD]", "[UNK]", "[CLS]", *WORDS, "##s", "##ing"]

    def __len__(self) -> int:
        return len(self.names)

    def _split(self, text: str) -> list[str]:
        pieces = []
        for word in text.lower().split():
            stem = (
                word[:-3] if word.endswith("ing") else word[:-1] if word.endswith("s") and word[:-1] in WORDS else word
            )
            pieces += [stem if stem in self.names else "[UNK]", *([f"##{word[len(stem) :]}"] if stem != word else [])]
        return pieces

    def __call__(self, text: str, add_special_tokens: bool = True, return_special_tokens_mask: bool = False) -> dict:
        pieces = [*(["[CLS]"] if add_special_tokens else []), *self._split(text)]
        found = {"input_ids": self.convert_tokens_to_ids(pieces), "attention_mask": [1] * len(pieces)}
        return found | (
            {"special_tokens_mask": [int(p == "[CLS]") for p in pieces]} if return_special_tokens_mask else {}
        )

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        one = lambda t: self.names.index(t) if t in self.names else 1  # noqa: E731
        return one(tokens) if isinstance(tokens, str) else [one(t) for t in tokens]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return [self.names[i] for i in ids]

    def decode(self, ids: Any) -> str:
        return " ".join(self.names[i] for i in ids).replace(" ##", "")


class Plain(nn.Module):
    """A classifier that is not a model of any library: `forward(ids)`."""

    def __init__(self, size: int, classes: int = 3) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(size, 8), nn.Linear(8, 12), nn.Linear(12, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.words(ids))).mean(1))


def build(kind: str, tokenizer: Any, **options: Any) -> Any:
    """A random model in float64."""
    import transformers as t

    size, pad = len(tokenizer), tokenizer.pad_token_id
    torch.manual_seed(0)
    shape = {**SMALL, "vocab_size": size, "pad_token_id": pad, **options}
    made = {
        "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**shape)),
        "mask": lambda: t.BertForMaskedLM(t.BertConfig(**shape)),
        "answer": lambda: t.BertForQuestionAnswering(t.BertConfig(**shape)),
        "tags": lambda: t.BertForTokenClassification(t.BertConfig(**shape)),
        "roberta": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**{**shape, "max_position_embeddings": 66})),
        "roberta mask": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**{**shape, "max_position_embeddings": 66})),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**shape, num_key_value_heads=2)),
        "gemma3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**shape, num_key_value_heads=2, head_dim=6)),
        "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**shape, eos_token_id=0, bos_token_id=0)),
        "mixtral": lambda: t.MixtralForCausalLM(
            t.MixtralConfig(**shape, num_key_value_heads=2, num_local_experts=4, experts_implementation="eager")
        ),
        "opt": lambda: t.OPTForCausalLM(
            t.OPTConfig(
                vocab_size=size, hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=24,
                max_position_embeddings=64,
            )
        ),
        "albert": lambda: t.AlbertForSequenceClassification(t.AlbertConfig(**shape, embedding_size=24)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=size, n_embd=24, n_layer=2, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=0)
        ),
        "mamba": lambda: t.MambaForCausalLM(
            t.MambaConfig(vocab_size=size, hidden_size=24, num_hidden_layers=2, state_size=4, pad_token_id=0)
        ),
        "bart": lambda: t.BartForConditionalGeneration(
            t.BartConfig(
                vocab_size=size, d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64, pad_token_id=0, bos_token_id=2,
                eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=3, init_std=0.3,
            )
        ),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=size, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4, decoder_start_token_id=0,
                pad_token_id=0,
            )
        ),
    }[kind]()  # fmt: skip
    return made.double().eval().requires_grad_(False)
