"""Model folders: finding one by name or path, its renderer, and a hash of what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfplay.chat.conversation import Role
from selfplay.chat.families import FAMILIES
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    TokenizerLoader = Callable[[Path], PreTrainedTokenizerBase]

EMBEDDED = "nano"
_RECORDS = ("training.json", "deepspeed.json")
ModelKind = Literal["base", "simulator", "assistant"]


@dataclass(frozen=True, slots=True)
class RoleModel:
    """A model that speaks for one role, checked before anything is started: a folder, or the URL of a server.

    `renderer` is there where prompts are rendered here; `tokenizer` is its folder, of a server's model too.
    """

    role: Role
    folder: Path | None
    url: str | None
    renderer: ChatRenderer | None
    tokenizer: Path | None = None

    def provenance(self) -> dict[str, str]:
        """Path or URL, and the content hash of the folder, or of a served model's tokenizer."""
        known = self.folder or self.tokenizer
        return {"path": str(self.folder or self.url), "content_hash": content_hash(known) if known else ""}


def locate_model(name: str, kind: ModelKind) -> Path:
    """The folder of a model: `nano` names the embedded one of that kind, anything else is a path.

    Raises:
        ModelError: the folder is missing or holds no model.
    """
    folder = Path(str(files("selfplay.models"))) / EMBEDDED / kind if name == EMBEDDED else Path(name).expanduser()
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ModelError(f"{kind} {name!r}: a folder of adapters; `selfplay train merge {name} --out FOLDER` first")
    if not (folder / "config.json").exists():
        found = "a folder without config.json" if folder.is_dir() else "no such folder"
        raise ModelError(
            f"{kind} {name!r}: {found}; expected a model folder made by `selfplay train`, or '{EMBEDDED}' for the "
            "embedded model"
        )
    return folder


def load_renderer(folder: Path, role: Role, load: TokenizerLoader | None = None) -> ChatRenderer:
    """The tokenizer and chat template of a folder, checked to speak for `role`.

    Args:
        load: the tokenizer of a folder; a cached one, where both sides of a run share a folder.

    Raises:
        ModelError: no usable tokenizer or template, one that opens the other side's turn, or a simulator without an
            end-of-conversation token.
    """
    tokenizer = (load or load_tokenizer)(folder)
    renderer = ChatRenderer(tokenizer, for_both_sides(tokenizer.chat_template, role))
    if not renderer.opens_turn_of(role):
        other = "assistant" if role == "user" else "user"
        hint = " To have an assistant play the user, set simulator.prompted." if role == "user" else ""
        raise ModelError(
            f"{folder}: its chat template does not open a {role} turn; expected a model trained for the {role} side. "
            f"Is this the {other}'s folder?{hint}"
        )
    if role == "user" and renderer.end_of_conversation_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no <|endconversation|> token, so this simulator could never end a "
            "conversation; train it with `selfplay train simulator`"
        )
    return renderer


def token_counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """Texts to their numbers of tokens, by the tokenizer of a folder (nano: the embedded one), whatever model it is of.

    Raises:
        ModelError: no tokenizer there that can be read.
    """
    folder = locate_model(name, "simulator") if name == EMBEDDED else Path(name).expanduser()
    tokenizer = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: needs a fast tokenizer (tokenizer.json)")
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoded) for encoded in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    return count


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, as its file has it.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        # AutoTokenizer imports every model of Transformers to find one class: ten seconds on a slow core.
        if (folder / "tokenizer.json").exists():
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(folder)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no tokenizer that can be read ({error})") from error


def for_both_sides(template: object, role: Role) -> str | None:
    """The role's variant where a folder's template is one that was trained on both sides; None elsewhere.

    Such a folder may be named for the simulator and the assistant, and one engine then serves both.
    """
    for known in FAMILIES.values():
        if template == known.template("all") and role != "system":
            return known.template(role)
    return None


def content_hash(folder: Path) -> str:
    """A hash over the names and bytes of a model's files: the same model gives the same value anywhere.

    Records of its making are no part of it: they name paths, and logs differ where a training was interrupted.
    """
    digest = blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja") and path.name not in _RECORDS:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
