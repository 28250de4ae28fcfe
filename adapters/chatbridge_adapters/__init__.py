"""One package per chat API, all of the same shape: `wire` types, a `backend`, an `emulator`."""
