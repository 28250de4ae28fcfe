"""The tables of a PostgreSQL store, as the steps that lead from each version to the next."""

from __future__ import annotations

from typing import Any, Final

from chatbridge.errors import StoreError

__all__ = ["STEPS", "migrate"]

# An account that there is none of is ''. Each statement may be repeated: some databases that speak PostgreSQL
# commit the ones before where a later one fails.
STEPS: Final = (
    (
        """
        CREATE TABLE IF NOT EXISTS {schema}.conversations (
            id text PRIMARY KEY,
            backend text NOT NULL,
            account text NOT NULL,
            remote text NOT NULL,
            body text NOT NULL,
            length bigint NOT NULL,
            head text,
            revision bigint NOT NULL,
            mark text NOT NULL,
            holder text,
            held_until timestamptz,
            used_at timestamptz NOT NULL,
            created boolean NOT NULL,
            used boolean NOT NULL,
            deleted boolean NOT NULL,
            UNIQUE (backend, account, remote)
        )
        """,
        "CREATE INDEX IF NOT EXISTS conversations_used ON {schema}.conversations (used_at, id)",
        "CREATE INDEX IF NOT EXISTS conversations_of ON {schema}.conversations (backend, used_at, id)",
        # Shared by all conversations that begin alike.
        """
        CREATE TABLE IF NOT EXISTS {schema}.messages (
            hash text PRIMARY KEY,
            parent text,
            content text NOT NULL,
            words tsvector NOT NULL
        )
        """,
        "CREATE INDEX IF NOT EXISTS messages_words ON {schema}.messages USING gin (words)",
        """
        CREATE TABLE IF NOT EXISTS {schema}.entries (
            conversation text NOT NULL REFERENCES {schema}.conversations (id),
            number bigint NOT NULL,
            hash text NOT NULL REFERENCES {schema}.messages (hash),
            details text NOT NULL,
            PRIMARY KEY (conversation, number)
        )
        """,
        "CREATE INDEX IF NOT EXISTS entries_of ON {schema}.entries (hash)",
        """
        CREATE TABLE IF NOT EXISTS {schema}.turns (
            conversation text NOT NULL REFERENCES {schema}.conversations (id) ON DELETE CASCADE,
            number bigint NOT NULL,
            id text NOT NULL,
            unsettled boolean NOT NULL,
            since timestamptz NOT NULL,
            body text NOT NULL,
            PRIMARY KEY (conversation, number),
            UNIQUE (conversation, id)
        )
        """,
        "CREATE INDEX IF NOT EXISTS turns_since ON {schema}.turns (since, conversation, number)",
        """
        CREATE INDEX IF NOT EXISTS turns_unsettled ON {schema}.turns (since, conversation, number)
        WHERE unsettled
        """,
    ),
)
"""By version, beginning with the first: what makes it of the one before."""

_TABLES: Final = ("meta", "conversations", "messages", "entries", "turns")


async def migrate(connection: Any, schema: str, quoted: str) -> None:  # noqa: ANN401 - asyncpg has no types
    """
    Bring the tables in *schema*, which is written *quoted*, to the version that is written here.

    It is done in a transaction. Where another process does it at the same time, it fails, and is done again.

    Raises:
        StoreError: They are another program's, or a later version's.
    """
    found = await connection.fetch(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_namespace n "
        "LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = ANY($2) "
        "WHERE n.nspname = $1",
        *(schema, _TABLES),
    )
    tables = {row["relname"] for row in found} - {None}
    if "meta" not in tables:
        if tables:
            raise StoreError(
                f"another program has a table {min(tables)!r} in the schema {schema!r}; use another schema",
                kind="corrupt",
            )
        if not found:  # To ask for it where it is takes a right that the user may not have.
            await connection.execute(f"CREATE SCHEMA {quoted}")
        await connection.execute(f"CREATE TABLE {quoted}.meta (name text PRIMARY KEY, value bigint NOT NULL)")
    read = f"SELECT value FROM {quoted}.meta WHERE name = 'version'"
    if _checked(await connection.fetchval(read)) == len(STEPS):
        return
    await connection.execute(f"INSERT INTO {quoted}.meta VALUES ('version', 0) ON CONFLICT DO NOTHING")
    for step in STEPS[_checked(await connection.fetchval(f"{read} FOR UPDATE")) :]:
        for statement in step:
            await connection.execute(statement.format(schema=quoted))
    await connection.execute(f"UPDATE {quoted}.meta SET value = $1 WHERE name = 'version'", len(STEPS))


def _checked(version: int | None) -> int:
    if version is not None and version > len(STEPS):
        raise StoreError(
            f"a later chatbridge wrote it: its version is {version}, and this one reads up to "
            f"{len(STEPS)}; update chatbridge, or use another schema",
            kind="newer",
        )
    return version or 0
