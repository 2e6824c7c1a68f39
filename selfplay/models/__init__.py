"""The embedded models. `nano/` holds a base, a simulator (UserGPT) and an assistant; MODEL_CARD.md describes them."""
