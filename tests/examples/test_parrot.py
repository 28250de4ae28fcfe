"""The contract for an adapter, against the emulator that it names; pytest makes a test of each rule."""

from chatbridge.testing.contract import EmulatorContract


class TestParrot(EmulatorContract):
    """Parrot keeps every rule."""

    backend = "parrot"
