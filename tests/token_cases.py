"""token_cases.py - what the Python package `tokenizers` makes of hard texts, for
test_tokenizers.c to compare.

    python3 tests/token_cases.py DIRECTORY [TEXT]      TEXT: a long one, tiny Shakespeare

Trains tokenizers of each kind that ttt_data.h reads, and writes to DIRECTORY each as NAME.json,
each text as TEXT.txt, and what came of the two, as NAME.TEXT.WHAT:
    special, bare   ids (int32, little-endian), with what the post-processor adds and without
    skipped, whole  the text of `special` again, without special tokens and with them
Of the text `random` there are only ids, many of them bytes that are no UTF-8, in `special`. The
file `list` has a line "NAME TEXT" for each pair.
"""
import copy
import json
import pathlib
import random
import struct
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
MARK = "\u2581"
BLANKS = [0x20, 0x85, 0xa0, 0x1680, *range(0x2000, 0x200b), 0x2028, 0x2029, 0x202f, 0x205f, 0x3000]
LONG = "bytes2000", "llama"  # these see the long text, too


# ---- texts ---------------------------------------------------------------------------------------
def hard_text():
    parts = [
        "'S 's 'll 'LL 'Ve 're 'm'd 't'T 'x a's's 'Šs '\u017fa '\u017ft ''s 's", "don't I'M we'Ve",
        "\0\0a\0 \0", "e\u0301 \u1e9b\u0323 q\u0307\u0323 \u0915\u094d\u0937\u093f \u0e01\u0e33",
        "\u1100\u1161\u11a8 각", "👨‍👩‍👧‍👦 👍🏽 \U0001f3f4\U000e0067\U000e0062\U000e007f 🇩🇪🇫🇷 ❤️ ☺ 0️⃣",
        "\u200d\u200c a\u200db", "日本語のテキスト、漢字かな交じり文。中文標點「」 한국어 㐀𠀀𪛖",
        "שָׁלוֹם العَرَبِيَّة \u202eabc\u202c \u200f\u200e פ1״",
        "0123456789 ٠١٢٣ ०१२ 𝟘𝟙 ½¾ Ⅷ ⅷ 一二三 ①② ²³ 1234567,890.12",
        "".join(chr(c) for c in range(0x300)),
        "".join(f"{chr(c)}x{chr(c)} {chr(c)}{chr(c)}" for c in BLANKS),
        "a\u180em\u200bn\u2060o\ufeffp",
        "\n\n\n a\n b\r\n\r\nc \r d\t\te\x0b\x0cf \n \n  x\n \n",
        " " * 300 + "x" + " " * 5 + "\n" + " " * 7,
        "   leading", "trailing   ", "tab\tand  two   three    four",
        "a" * 500, "ab" * 300, "zzzZZZ" * 40, "\n" * 100,
        "!!!??? ...--- ~~~ #include <stdio.h> /* c */ x=y+z; $5.00 50% a_b __init__ (a)[b]{c}",
        "<s>hi</s> <unk><0x41> <0xE2> <mask>one <mask> two<mask>  three  <mask>\n<mask>",
        "theword word wordy sword word\u0301 word.word,word", "word", " word ",
        "<|endoftext|>a <|endoftext|> b<|endoftext|>", "<longest><long><long>est>",
        "A\u2581b \u2581 \u2581\u2581c <0x0A> <0xZZ>",
        "Ωμέγα ΑΒΓ привет мир ԱԲԳ აბგ ᎠᎡ ꙮ ß ŉ ǆ İı ﬁ ﬆ \ufffd \ufffe \U0010ffff \U000e0041",
        "Ġ Ċ âĢĻ Ā ŀ Ń",
    ]
    return "".join(parts) + "\n".join(parts) + " ".join(reversed(parts))


# Characters before a letter, a digit and a sign: with which of them do they make words?
def classes_text():
    others = [c for c in range(0x700, 0x110000) if not 0xd800 <= c < 0xe000]
    rng = random.Random(2)
    codes = [*range(0x700), *rng.sample(others[:0x1f000], 2500), *rng.sample(others, 300)]
    return "".join(f"\n{chr(c)}a\n{chr(c)}1\n{chr(c)}!.{chr(c)}word." for c in codes)


# ---- tokenizers ----------------------------------------------------------------------------------
BYTES = pre_tokenizers.ByteLevel.alphabet()


def trained(pre_tokenizer, vocab_size, texts, **options):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options)
    t.train_from_iterator(texts, trainer)
    return json.loads(t.to_str())


def added(content, special=False, **flags):
    token = dict(content=content, single_word=False, lstrip=False, rstrip=False, normalized=False)
    return {**token, "special": special, **flags}


# A token that the vocabulary has keeps its id.
def with_added(t, tokens):
    t, vocab = copy.deepcopy(t), t["model"]["vocab"]
    free = iter(range(len(vocab), len(vocab) + len(tokens)))
    ids = [vocab[a["content"]] if a["content"] in vocab else next(free) for a in tokens]
    t["added_tokens"] += [dict(id=id, **token) for id, token in zip(ids, tokens)]
    return t


def some_added(t, normalized):
    return with_added(t, [
        added("<mask>", True, lstrip=True, rstrip=True), added("<long>"), added("<longest>", True),
        added("word", single_word=True, normalized=normalized), added(" x", lstrip=True),
        added("é", normalized=normalized)])


def template(*names_and_ids, behind=()):
    special = lambda pair: {"SpecialToken": {"id": pair[0], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [*map(special, names_and_ids), text, *map(special, behind)]
    tokens = {name: {"id": name, "ids": [id], "tokens": [name]}
              for name, id in [*names_and_ids, *behind]}
    pair = single + [{"Sequence": {"id": "B", "type_id": 1}}]
    return dict(type="TemplateProcessing", single=single, pair=pair, special_tokens=tokens)


def as_strings(t):
    t = copy.deepcopy(t)
    t["model"]["merges"] = [" ".join(m) for m in t["model"]["merges"]]
    return t


def byte_level(texts, size, prefix=False, regex=True):
    pre = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    special = ["<|endoftext|>"] if size % 2 == 0 else []
    t = trained(pre, size, texts, initial_alphabet=BYTES, special_tokens=special)
    t["decoder"] = t["post_processor"] = dict(type="ByteLevel", add_prefix_space=True,
                                              trim_offsets=True, use_regex=True)
    return t


def split(t, regex, behavior="Isolated", invert=False):
    t = copy.deepcopy(t)
    parts = [dict(type="Split", pattern=dict(Regex=regex), behavior=behavior, invert=invert),
             dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)]
    t["pre_tokenizer"] = dict(type="Sequence", pretokenizers=parts)
    processors = [t["post_processor"], template(("<|endoftext|>", 0))]
    t["post_processor"] = dict(type="Sequence", processors=processors)
    return t


# Every byte, and behind each byte a, 1 and !: tokens show the ends of words.
def classes(regex):
    alphabet = sorted(BYTES)
    pairs = [(b, c) for c in "a1!" for b in alphabet]
    vocab = {s: i for i, s in enumerate(["<|endoftext|>"] + alphabet + [b + c for b, c in pairs])}
    t = byte_level([], 258)
    t["model"].update(vocab=vocab, merges=[list(p) for p in pairs])
    t = with_added(t, [added("word", single_word=True)])
    return split(t, regex) if regex else t


def llama(texts, size):
    names = ["<unk>", "<s>", "</s>"]
    special = names + [f"<0x{b:02X}>" for b in range(256)]
    space = pre_tokenizers.Metaspace(prepend_scheme="always")
    t = trained(space, size, texts, special_tokens=special)
    t = with_added(dict(t, added_tokens=[]), [added(name, True) for name in names])
    t["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    t["pre_tokenizer"] = None
    t["normalizer"] = dict(type="Sequence", normalizers=[dict(type="Prepend", prepend=MARK), dict(
        type="Replace", pattern=dict(String=" "), content=MARK)])
    t["decoder"] = dict(type="Sequence", decoders=[
        dict(type="Replace", pattern=dict(String=MARK), content=" "), dict(type="ByteFallback"),
        dict(type="Fuse"), dict(type="Strip", content=" ", start=1, stop=0)])
    t["post_processor"] = template(("<s>", 1), behind=[("</s>", 2)])
    return t


def metaspace(t, scheme, cut):
    t = copy.deepcopy(t)
    space = dict(type="Metaspace", replacement=MARK, prepend_scheme=scheme, split=cut)
    t.update(normalizer=None, pre_tokenizer=space, decoder=space)
    return t


def model(t, **options):
    return dict(t, model=dict(t["model"], **options))


def without(t, *bytes):
    t = copy.deepcopy(t)
    for b in bytes:  # the ids stay: holes
        del t["model"]["vocab"][f"<0x{b:02X}>"]
    return t


def all_tokenizers(texts):
    small, large, base = byte_level(texts, 500), byte_level(texts, 2000), llama(texts, 1500)
    yield "bytes301", byte_level(texts, 301)
    yield "bytes500", as_strings(small)
    yield "bytes2000", some_added(large, False)
    whole, prefix = copy.deepcopy(large), some_added(large, True)
    whole["pre_tokenizer"]["use_regex"] = False
    prefix["pre_tokenizer"]["add_prefix_space"] = True
    yield "whole", whole
    yield "prefix", prefix
    for name, regex in [("gpt2", GPT2), ("llama3", LLAMA3), ("qwen2", QWEN2)]:
        yield name, split(small, regex)
    yield "cl100k", split(small, CL100K, "Removed", True)
    yield "gpt2_classes", classes(None)
    yield "llama3_classes", classes(LLAMA3)
    half = large["model"]["merges"][::2]
    yield "ignores", model(split(large, LLAMA3), ignore_merges=True, merges=half)
    no_alphabet = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 400, texts)
    yield "unknown_bytes", dict(no_alphabet, decoder=small["decoder"])
    yield "llama", base
    yield "llama_strings", as_strings(base)
    yield "holes", without(base, 0xe2, 0x80, 0xf0)
    yield "no_fuse", model(base, fuse_unk=False, byte_fallback=False)
    yield "fuse", model(base, byte_fallback=False)
    yield "no_unk", model(base, unk_token=None, byte_fallback=False)
    yield "normalized", with_added(dict(base, added_tokens=[]), [
        added("</s>", True, normalized=True), added("<mask>", normalized=True),
        added("<s>", True, single_word=True, rstrip=True)])
    yield "some_normalized", some_added(base, True)
    for scheme in "always", "first", "never":
        yield "metaspace_" + scheme, metaspace(base, scheme, True)
        yield "uncut_" + scheme, some_added(metaspace(base, scheme, False), True)


# ---- what comes of them --------------------------------------------------------------------------
def write_ids(path, ids):
    path.write_bytes(struct.pack(f"<{len(ids)}i", *ids))


def main(folder, long_text=None):
    folder = pathlib.Path(folder)
    texts = {"hard": hard_text(), "classes": classes_text(), "empty": "", "blank": " "}
    texts["mark"] = MARK
    if long_text and pathlib.Path(long_text).exists():
        texts["long"] = pathlib.Path(long_text).read_bytes().decode()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    lines = []
    rng = random.Random(1)
    for name, t in all_tokenizers([texts["hard"], texts.get("long", "")[:60000]]):
        source = json.dumps(t, ensure_ascii=len(name) % 2 == 0)
        (folder / f"{name}.json").write_bytes(source.encode())
        t = Tokenizer.from_str(source)
        its_added = t.get_added_tokens_decoder()
        ids = sorted(t.get_vocab().values())
        some = [rng.choice(ids[:500] if i % 3 else ids) for i in range(3000)]
        for text in texts:
            if (text == "classes") != ("classes" in name) or (text == "long" and name not in LONG):
                continue
            special = t.encode(texts[text]).ids
            write_ids(folder / f"{name}.{text}.special", special)
            if text != "long":
                bare = t.encode(texts[text], add_special_tokens=False).ids
                write_ids(folder / f"{name}.{text}.bare", bare)
            lines.append((name, text, special))
        write_ids(folder / f"{name}.random.special", some)
        lines.append((name, "random", some))
        for n, text, special in lines:
            if n == name:
                whole = t.decode(special, skip_special_tokens=False)
                skipped = t.decode(special, skip_special_tokens=True)
                if "normalized" in name:  # the package does not see that these are special
                    others = [i for i in special if i not in its_added or not its_added[i].special]
                    skipped = t.decode(others, skip_special_tokens=False)
                (folder / f"{name}.{text}.whole").write_bytes(whole.encode())
                (folder / f"{name}.{text}.skipped").write_bytes(skipped.encode())
    (folder / "list").write_text("".join(f"{name} {text}\n" for name, text, _ in lines))


main(*sys.argv[1:])
