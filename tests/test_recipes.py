"""Recipe files: those that are shipped, those that cannot work, and what a job order gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ifpp.errors import FAULTS, SettingsError, SupplyError
from ifpp.model.recipe import (
    IFPP_LOAD,
    IFPP_STOCK,
    STEPS,
    CleanToShip,
    DeleteKeys,
    Eim,
    Enable,
    Fit,
    Identify,
    Load,
    Lock,
    Nickname,
    Promised,
    ReadBack,
    Recipe,
    Verify,
    digest,
    promise,
)
from ifpp.recipes import RecipeBook, load_recipe, load_recipes

SHIPPED = Path(__file__).parent.parent / "config" / "recipes"
BEGIN = "".join(f'[[step]]\ndo = "{name}"\n' for name in ("identify", "fit", "load", "verify"))
ONLINE = "".join(f'[[step]]\ndo = "{name}"\n' for name in ("identify", "fit", "download", "notify"))
HEAD = 'name = "r"\nversion = "1"\n'


def written(tmp_path: Path, steps: str, head: str = HEAD) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(head + steps, encoding="utf-8")
    return path


def steps(*names: str) -> str:
    return "".join(f'[[step]]\ndo = "{name}"\n' for name in names)


# ---- those that are shipped ------------------------------------------------------------------------------


def test_the_shipped_recipes_can_work_and_say_what_the_line_does_without_files() -> None:
    book = load_recipes(SHIPPED)
    assert {recipe.name for recipe in book} >= {"ifpp-load", "ifpp-stock", "ifpp-enable", "iot-eim", "rsp-factory"}
    assert book.of("ifpp-load", "1") == IFPP_LOAD
    assert book.of("ifpp-stock", "1") == IFPP_STOCK


def test_every_step_has_its_row_and_every_fault_its_entry() -> None:
    used = {step.name for recipe in load_recipes(SHIPPED) for step in recipe.steps}
    assert used <= STEPS.keys()
    assert {code for row in STEPS.values() for code in row.faults} <= FAULTS.keys()


def test_what_a_recipe_says_has_a_digest_and_its_comments_have_not(tmp_path: Path) -> None:
    one = load_recipe(written(tmp_path, BEGIN))
    same = load_recipe(written(tmp_path, f"# a comment\n\n{BEGIN}"))
    other = load_recipe(written(tmp_path, BEGIN + steps("delete-keys")))
    assert digest(one) == digest(same) != digest(other)


def test_the_digest_covers_the_certificates_a_recipe_names(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    before = digest(load_recipe(tmp_path / "iot-eim.toml"))
    shutil.copy(tmp_path / "eim-ca.pem", tmp_path / "eim.pem")
    assert digest(load_recipe(tmp_path / "iot-eim.toml")) != before


# ---- those that cannot work ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "begin with identify, fit, load, verify"),
        (steps("identify", "load", "verify"), 5, "begin with identify"),
        (steps("identify", "fit", "load", "delete-keys"), 9, "begin with"),
        (BEGIN + steps("enable"), 11, "no chip takes enable while one-time keys remain: put delete-keys before it"),
        (BEGIN + steps("lock"), 11, "put delete-keys before it"),
        (BEGIN + steps("delete-keys", "delete-keys"), 13, "a second time"),
        (BEGIN + steps("delete-keys", "connect"), 13, "no profile is enabled here"),
        (BEGIN + steps("delete-keys", "disable"), 13, "not enabled here"),
        (BEGIN + steps("delete-keys", "enable", "disable", "connect"), 17, "no profile is enabled here"),
        (BEGIN + steps("delete-keys", "read-back", "lock"), 15, "after the final read-back"),
        (BEGIN + steps("clean-to-ship"), 11, "put lock and read-back before it"),
        (BEGIN + steps("delete-keys", "lock", "clean-to-ship"), 15, "put lock and read-back"),
        (BEGIN + steps("delete-keys", "lock", "read-back", "clean-to-ship", "enable"), 19, "make clean-to-ship the"),
        (BEGIN + steps("delete-keys", "enable") + 'profile = "x"\n', 13, "'x' is not loaded by this recipe"),
        (BEGIN + steps("delete-keys", "nickname") + f'text = "{"ä" * 40}"\n', 13, "more than 64 bytes"),
        (steps("identify", "download"), 5, "begin with identify, fit, download"),
        (steps("identify", "fit", "load", "download"), 7, "begin with identify, fit, download"),
        (ONLINE + steps("verify"), 11, "verify does not go with download: make it a recipe of its own"),
        (ONLINE + steps("load"), 11, "load does not go with download"),
        (ONLINE + steps("download"), 11, "a second time"),
        (ONLINE + steps("enable", "clean-to-ship"), 13, "put read-back before it"),
        (ONLINE + steps("enable") + 'profile = "x"\n', 11, "name it in download: profiles"),
        (BEGIN + steps("notify"), 11, "nothing of what is loaded offline is told to an SM-DP+"),
        (BEGIN + steps("polish"), 11, "Invalid value 'polish'"),
        (BEGIN + steps("delete-key"), 11, 'did you mean "delete-keys"?'),
        (BEGIN + steps("delete-keys", "connect") + "within = 5\n", 13, 'did you mean "within_s"?'),
        (BEGIN + steps("delete-keys", "connect") + "within_s = 0\n", 13, "> 0"),
        (BEGIN + steps("delete-keys", "eim") + 'id = "e"\ncertificate = "no.pem"\n', 13, "put the PEM file beside"),
        (BEGIN + steps("delete-keys", "default-address") + 'address = "a b"\n', 13, "matching regex"),
        (BEGIN + 'profiles = ["a"]\n', 9, "profiles"),
        (steps("identify", "fit", "load") + 'profiles = ["a", "a"]\n' + steps("verify"), 7, "comes twice"),
        (
            steps("identify", "fit", "load") + 'profiles = ["a", "b"]\n' + steps("verify", "delete-keys", "enable"),
            14,
            'write profile = "a"',
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_line_and_what_to_do(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = written(tmp_path, text, 'name = "r"\nversion = "1"\nstep = []\n' if not text else HEAD)
    with pytest.raises(SettingsError) as caught:
        load_recipe(path)
    assert caught.value.code == "RECIPE.INVALID"
    assert caught.value.where == f"{path}:{line}"
    assert says in caught.value.detail


@pytest.mark.parametrize("text", ["name = 'r'\n", "][", 'name = "r"\nversion = "1"\ncolour = 1\n' + BEGIN])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_recipe(written(tmp_path, text, ""))
    assert caught.value.code == "RECIPE.INVALID"
    assert str(tmp_path / "r.toml") in caught.value.where


def test_a_name_comes_once_in_each_version(tmp_path: Path) -> None:
    for name, version in (("a", "1"), ("b", "2"), ("c", "1")):
        (tmp_path / f"{name}.toml").write_text(f'name = "r"\nversion = "{version}"\n{BEGIN}')
    with pytest.raises(SettingsError, match=r"a\.toml has the same name and version"):
        load_recipes(tmp_path)


def test_a_folder_without_recipes_is_no_folder_of_recipes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_recipes(tmp_path)
    assert caught.value.code == "SETTINGS.MISSING"


# ---- what a job order gets -------------------------------------------------------------------------------


def test_without_files_every_order_gets_what_the_line_does() -> None:
    assert RecipeBook().of("anything", "7") is IFPP_LOAD
    assert RecipeBook().of("anything", "7", finish="stock") is IFPP_STOCK


def test_with_files_an_order_gets_its_recipe_in_its_version_or_none(tmp_path: Path) -> None:
    book = RecipeBook([IFPP_LOAD, IFPP_STOCK])
    assert book.of("ifpp-stock", "1") is IFPP_STOCK
    for name, version in (("ifpp-stock", "2"), ("other", "1")):
        with pytest.raises(SupplyError) as caught:
            book.of(name, version)
        assert caught.value.code == "RECIPE.UNKNOWN"
        assert "ifpp-load 1, ifpp-stock 1" in caught.value.detail


def test_a_recipe_promises_what_its_steps_leave_behind() -> None:
    eim = Eim(id="e", certificate="-")
    recipe = Recipe(
        "r",
        "1",
        (
            Identify(),
            Fit(),
            Load(("a", "b")),
            Verify(),
            DeleteKeys(),
            Enable("a"),
            Enable("b"),
            Nickname("n", "a"),
            eim,
            Lock(),
            ReadBack(),
            CleanToShip(),
        ),
    )
    promised = promise(recipe)
    assert promised.profiles == {"a": Promised(False, "n"), "b": Promised(True, None)}
    assert (promised.eim, promised.address, promised.others) == (eim, None, False)
    assert promised.keys_gone
    assert promised.locked
    assert promise(IFPP_LOAD).of("whatever") == Promised(False, None)
    assert promise(IFPP_LOAD).others
