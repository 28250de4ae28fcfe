"""One async client for chat APIs, whoever's they are."""
