"""What tests of bots and adapters are made of: a fake backend, emulators, a clock that stands still."""
