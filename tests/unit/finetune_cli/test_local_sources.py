from pathlib import Path

import pytest

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import resolve
from finetune_cli.errors import CliError
from finetune_cli.local.sources import SourceMap, make_links, map_sources


def make_spec(model: str = "s3://finetune/models/tiny", data: str = "configmap://sft/train.jsonl") -> FineTuneJobSpec:
    return resolve({"model": {"uri": model}, "dataset": {"uri": data}}).spec


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A model directory and a data file."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "train.jsonl").write_text("{}")
    return tmp_path


def test_mapped_sources_become_files_of_a_local_claim(here: Path) -> None:
    """A-19: the same manifest runs without a cluster; names of files stay, since they tell the format."""
    maps = [SourceMap.parse(f"s3://finetune/models/tiny={here}/tiny"), SourceMap.parse(f"configmap://sft/train.jsonl={here}/train.jsonl")]
    spec, links = map_sources(make_spec(), maps)
    assert (spec.model.uri, spec.dataset.uri) == ("pvc://local/0/tiny", "pvc://local/1/train.jsonl")
    make_links(here / "claims", links)
    make_links(here / "claims", links)
    assert (here / "claims/local/1/train.jsonl").read_text() == "{}"
    assert (here / "claims/local/0/tiny").resolve() == here / "tiny"


def test_a_map_of_a_folder_covers_what_is_below_it_and_the_longest_wins(here: Path) -> None:
    maps = [SourceMap("s3://finetune", here), SourceMap("s3://finetune/models/tiny", here / "tiny")]
    spec, _ = map_sources(make_spec(data="s3://finetune/data/train.jsonl"), maps)
    assert spec.model.uri == "pvc://local/1/tiny"
    assert spec.dataset.uri == f"pvc://local/0/{here.name}/data/train.jsonl"


def test_a_name_that_only_begins_alike_is_not_covered(here: Path) -> None:
    with pytest.raises(CliError, match="no source of the job has this address"):
        map_sources(
            make_spec(model="s3://finetune/models/tiny-2", data="hf://org/data"), [SourceMap("s3://finetune/models/tiny", here / "tiny")]
        )


def test_addresses_that_work_anywhere_need_no_map() -> None:
    spec, links = map_sources(make_spec(model="hf://org/model", data="https://example.org/rows.jsonl"), [])
    assert (spec.model.uri, spec.dataset.uri, links) == ("hf://org/model", "https://example.org/rows.jsonl", {})


def test_an_address_that_only_a_cluster_has_must_be_mapped() -> None:
    with pytest.raises(CliError, match=r"spec\.dataset\.uri is configmap://sft/train\.jsonl, which exists only in a cluster") as missing:
        map_sources(make_spec(model="hf://org/model"), [])
    assert missing.value.advice == "Say what stands for it here: --map configmap://sft/train.jsonl=PATH"


@pytest.mark.parametrize(
    ("text", "message"),
    [("s3://a/b", "write URI=PATH"), ("./a=./b", "write URI=PATH"), ("s3://a/b=/nowhere", "there is nothing at /nowhere")],
)
def test_a_map_that_cannot_be_is_named(text: str, message: str) -> None:
    with pytest.raises(CliError, match=message):
        SourceMap.parse(text)
