"""Every error a user can cause.

SelfplayError
├── ConfigError             a recipe, flag or combination of them cannot be used
├── ModelError              a model folder, tokenizer or chat template cannot be used
│   ├── EmptyLossMask       nothing would be trained
│   └── MissingPackage      an optional package is not installed
├── DataError               a file or a dataset cannot be read
│   ├── BadRow              one row cannot become a conversation (counted and skipped unless --strict)
│   └── InvalidConversation turns that are empty, out of order or missing
├── StoreError              a run folder cannot be opened, created or resumed
└── BackendError            an engine could not start, or is gone
    └── RequestError        one request failed; the engine goes on

    try:
        app.generate(config)
    except SelfplayError as error:
        print(error)

A message says what was found, what was expected and what to do.
"""

from __future__ import annotations


class SelfplayError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(SelfplayError):
    """A recipe, flag or combination of them cannot be used."""


class ModelError(SelfplayError):
    """A model folder, tokenizer or chat template cannot be used."""


class EmptyLossMask(ModelError):
    """No token would carry loss."""


class MissingPackage(ModelError):
    """An optional package is not installed; what does not need it still works."""


class DataError(SelfplayError):
    """A file or a dataset cannot be read."""


class BadRow(DataError):
    """One row cannot become a conversation."""


class InvalidConversation(DataError):
    """Turns that are empty, out of order or missing. `reason` leaves the conversation's id out, so that it adds up."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason

    def __str__(self) -> str:
        return f"{ascii(self.id)[1:-1]}: {self.reason}"


class StoreError(SelfplayError):
    """A run folder cannot be opened, created or resumed."""


class BackendError(SelfplayError):
    """An engine could not start, or is gone."""


class RequestError(BackendError):
    """One request failed; the engine goes on. `cause` is one word for the reason `failed:<cause>`."""

    def __init__(self, message: str, cause: str = "request") -> None:
        super().__init__(message)
        self.cause = cause
