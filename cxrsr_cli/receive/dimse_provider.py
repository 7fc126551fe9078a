"""The messages of an association, one at a time (PS3.7 6.3 and D.3.3.3).

pynetdicom's own provider keeps all that a peer sends ahead, in memory or in files,
and takes it whatever its context; here a message is looked at as it comes, and
its data set goes to a file of ours.
"""

import queue
import time
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from cxrsr_cli.receive.connection import PeerConnection
from cxrsr_cli.receive.presentation_contexts import VERIFICATION
from cxrsr_cli.receive.refusal import STATUSES, ProtocolViolationError, RefusalReason
from cxrsr_cli.receive.store_sink import StoreResult, StoreSink
from cxrsr_cli.receive.validation import StoreRequest, is_uid

_MAX_COMMAND_BYTES = 1 << 14
_COMMAND_FRAGMENT, _LAST_FRAGMENT = 1, 2
_RESPONSE = 0x8000
_STORE, _ECHO, _CANCEL = 0x0001, 0x0030, 0x0FFF
_GROUP = 0x0000
_TURN = 0.2
"""Seconds between looks at the time while nothing comes."""

_MAX_COMMENT_LENGTH = 64


class BoundedDimseProvider(DIMSEServiceProvider):
    """Takes messages in the thread of the upper layer, and gives them to that which serves.

    Parameters
    ----------
    association : Association
        Whose messages they are.
    caller : Caller
        The peer.
    """

    def __init__(self, association: Association, caller: PeerConnection) -> None:
        super().__init__(association)
        self._caller = caller
        self._limits = caller.node.config.limits
        self._heard = self._begun = time.monotonic()
        self._contexts: dict[int, PresentationContext] = {}
        self._context_id = 0
        self._storing: StoreSink | None = None
        self._objection: RefusalReason | None = None
        # Each is written by one of the two threads only.
        self._handed_over = self._served = self._taken = 0

    @property
    def is_busy(self) -> bool:
        """Whether a message waits to be served, or is."""
        return self._handed_over > self._served

    def note_activity(self) -> None:
        """Note that the peer sent something."""
        self._heard = time.monotonic()

    def pdu_deadline(self) -> float:
        """Return by when a PDU that begins now must be whole, by `time.monotonic`."""
        if self.assoc.requestor.primitive is None:
            return self._caller.began + self._limits.idle_timeout
        deadline = time.monotonic() + self._limits.idle_timeout
        if self.message is None:
            return deadline
        return min(deadline, self._begun + self._limits.instance_timeout)

    # In the thread of the upper layer.

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the presentation data values of a P-DATA-TF (PS3.8 9.3.5 and annex E.2)."""
        try:
            if not primitive.presentation_data_value_list:
                raise ProtocolViolationError(RefusalReason.MALFORMED)
            for context_id, value in primitive.presentation_data_value_list:
                self._on_pdv(context_id, value)
        except ProtocolViolationError as error:
            self.abort_association(error.reason)
        # Anything may be raised by bytes that are no command, with values in the text.
        except Exception:
            self.abort_association(RefusalReason.MALFORMED)

    def abort_association(self, reason: RefusalReason) -> None:
        """Have the association aborted."""
        self._caller.set_end_reason(reason)
        self.dul.event_queue.put("Evt19")

    def _on_pdv(self, context_id: int, value: bytes) -> None:
        if not value:
            raise ProtocolViolationError(RefusalReason.MALFORMED)
        if not self._contexts:
            self._contexts = {cast("int", cx.context_id): cx for cx in self.assoc.accepted_contexts}
        if self.message is None:
            self.message = DIMSEMessage()
            self._context_id = context_id
            self._begun = time.monotonic()
        is_command = bool(value[0] & _COMMAND_FRAGMENT)
        if (
            self.is_busy  # synchronous: a peer waits for the answer to its last message
            or context_id != self._context_id
            or context_id not in self._contexts
            or is_command is not (self._storing is None)
        ):
            raise ProtocolViolationError(RefusalReason.UNEXPECTED)
        if self.message.encoded_command_set.tell() + is_command * len(value) > _MAX_COMMAND_BYTES:
            raise ProtocolViolationError(RefusalReason.TOO_LONG)
        one = P_DATA()
        one.presentation_data_value_list.append((context_id, value))
        is_whole = self.message.decode_msg(one, self.assoc)
        if is_command and value[0] & _LAST_FRAGMENT:
            self._begin(self.message, self._contexts[context_id], has_data_set=not is_whole)
        if is_whole:
            self._enqueue(self.message)

    def _begin(
        self, message: DIMSEMessage, context: PresentationContext, *, has_data_set: bool
    ) -> None:
        command = message.command_set
        if any(element.tag.group != _GROUP for element in command):
            raise ProtocolViolationError(RefusalReason.MALFORMED)
        if int(command.CommandField) & _RESPONSE:
            raise ProtocolViolationError(RefusalReason.UNEXPECTED)
        announced = StoreRequest(
            sop_class=str(command.get("AffectedSOPClassUID") or ""),
            sop_instance=str(command.get("AffectedSOPInstanceUID") or ""),
            transfer_syntax=context.transfer_syntax[0],
        )
        self._objection = _rejection_status(
            int(command.CommandField), announced, context, has_data_set
        )
        # pynetdicom would stumble over what is no UID; and nothing of it is to be sent back.
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            if keyword in command and not is_uid(str(command[keyword].value)):
                del command[keyword]
        if has_data_set:
            self._storing = StoreSink(
                announced, self._caller.node.folder, self._limits, self._objection
            )
            message.data_set = self._storing

    def _enqueue(self, message: DIMSEMessage) -> None:
        request = cast("DimseServiceType", message.message_to_primitive())
        if isinstance(request, C_CANCEL):  # there is nothing that it could cancel
            self.message = None
            return
        if request.MessageID is None or (self._objection is None and not request.is_valid_request):
            raise ProtocolViolationError(RefusalReason.MALFORMED)
        self._handed_over += 1
        self.message = self._storing = None
        self.msg_queue.put((self._context_id, request))

    def discard_partial(self) -> None:
        """Remove what was received of a message that will not be served."""
        if self.message is not None:
            self._caller.set_end_reason(RefusalReason.BROKEN_OFF)
        if self._storing is not None:
            self._storing.discard_partial()
        while not self.msg_queue.empty():
            try:
                _, request = self.msg_queue.get_nowait()
            except queue.Empty:  # the other thread was faster
                return
            if isinstance(request, C_STORE) and isinstance(request.DataSet, StoreSink):
                request.DataSet.discard_partial()

    # In the thread that serves.

    def wake(self) -> None:
        """End the wait for a message."""
        self.msg_queue.put((None, None))

    def get_msg(self, block: bool = False) -> tuple[None, None] | tuple[int, DimseServiceType]:  # noqa: ARG002
        """Return the next message, after a while if there is none; the last one is served then."""
        if self._taken > self._served:
            self._served = self._taken
            self.note_activity()  # it is the peer's turn now
        reason = self._reason_to_end()
        if reason is not None:
            self._caller.set_end_reason(reason)
            self.assoc.abort()
            return None, None
        try:
            context_id, request = self.msg_queue.get(timeout=_TURN)
        except queue.Empty:
            return None, None
        if context_id is None or request is None:
            return None, None
        self._taken = self._handed_over
        if self._objection is None:
            return context_id, request
        self._refuse(request, context_id, self._objection)
        return None, None

    def _reason_to_end(self) -> RefusalReason | None:
        if self.is_busy or not self.assoc.is_established:
            return None
        now = time.monotonic()
        if self.message is None and self._caller.node.stopping.is_set():
            return RefusalReason.STOPPING
        ends = (
            self._caller.began + self._limits.association_timeout
            if self.message is None
            else self._begun + self._limits.instance_timeout
        )
        return (
            RefusalReason.SLOW if now > min(ends, self._heard + self._limits.idle_timeout) else None
        )

    def _refuse(self, request: DimseServiceType, context_id: int, reason: RefusalReason) -> None:
        """Answer a request that no service of pynetdicom is to see."""
        self._caller.report(reason)
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            if getattr(request, keyword, None) is not None:
                setattr(response, keyword, getattr(request, keyword))
        response.Status = int(STATUSES[reason])
        self.send_msg(response, context_id)

    def store(self, event: evt.Event) -> Dataset:
        """Decide what a C-STORE is answered with."""
        data_set = cast("C_STORE", event.request).DataSet
        if isinstance(data_set, StoreSink):
            verdict = data_set.end(
                self._caller.node.accept,
                calling_ae=self._caller.title,
                called_ae=self._caller.called,
                address=self._caller.address,
            )
        else:
            verdict = StoreResult.refused(RefusalReason.NO_DATA_SET)
        status = Dataset()
        status.Status = int(verdict.status)
        if verdict.reason is not None:
            self._caller.report(verdict.reason)
            status.ErrorComment = verdict.reason[:_MAX_COMMENT_LENGTH]
        return status


def _rejection_status(
    field: int, announced: StoreRequest, context: PresentationContext, has_data_set: bool
) -> RefusalReason | None:
    """Find why a request is not to be served."""
    if field == _CANCEL and not has_data_set:
        return None
    if field not in (_STORE, _ECHO) or (field == _ECHO and has_data_set):
        return RefusalReason.OPERATION
    if field == _STORE and not has_data_set:
        return RefusalReason.NO_DATA_SET
    if not is_uid(announced.sop_class) or (field == _STORE and not is_uid(announced.sop_instance)):
        return RefusalReason.ILLEGAL_UID
    expected = VERIFICATION if field == _ECHO else context.abstract_syntax
    return None if announced.sop_class == expected else RefusalReason.SOP_CLASS
