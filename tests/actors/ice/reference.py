"""Checks and answers as aioice's codec makes them: what the packed ones are compared with, and an independent peer."""

from aioice import stun

from exeunt.actors.ice import Address, Credentials
from exeunt.actors.ice.candidate import priority
from exeunt.actors.ice.packing import Role


def check_request(
    credentials: Credentials, role: Role, *, nominate: bool, transaction_id: bytes | None = None
) -> stun.Message:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id)
    message.attributes["USERNAME"] = f"{credentials.remote_username}:{credentials.local_username}"
    message.attributes["PRIORITY"] = priority("prflx")
    message.attributes["ICE-CONTROLLING" if role.controlling else "ICE-CONTROLLED"] = role.tie_breaker
    if nominate and role.controlling:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(credentials.remote_password.encode())
    return message


def success(transaction_id: bytes, source: Address, credentials: Credentials) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id)
    message.attributes["XOR-MAPPED-ADDRESS"] = source
    message.add_message_integrity(credentials.local_password.encode())
    return bytes(message)
