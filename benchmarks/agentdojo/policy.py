"""The policy: Checkrein decorators over the 69 tools of the four suites, and one grant per suite.

Each function below is a signature; ``@real`` lets the suite's own tool of that
name do the work. The decorators above it state facts, by these conventions:

* ``Untrusted[...]`` comes back where strangers may write: mail, calendar (they
  send invitations), shared files, contacts (senders become contacts), incoming
  transactions, chat, names of channels and of people in it, web pages, reviews.
  Tools that change such an object and return it are sources, too.
* ``evidence=True`` is what the user or the operator keeps: balance, profile,
  standing orders, drafts and sent mail, today's date, the travel catalogue.
* ``Untrusted[str]`` parameters are payload: bodies, subjects, contents, titles.
* ``irreversible`` is what reaches people or money, or destroys; ``writes`` is
  what its owner can change back; ``external`` is what somebody else receives.

Nothing here knows of a task. The grants allow a suite what its tools do; there
are no destinations in them. :func:`grant_for` says what they leave open.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Final, Literal

from agentdojo.default_suites.v1.tools.banking_client import Transaction
from agentdojo.default_suites.v1.tools.email_client import EmailContact
from agentdojo.default_suites.v1.tools.slack import Message
from agentdojo.default_suites.v1.tools.types import CalendarEvent, CloudDriveFile, Email
from checkrein import (
    Directory,
    Grant,
    Untrusted,
    allow,
    composed,
    irreversible,
    others,
    preapproved,
    reads,
    refers,
    writes,
)
from checkrein.constraints import anything, either, exactly, matches
from checkrein.facts import ToolFacts
from checkrein.frames import spec_of

Tool = Callable[..., Any]

FILES: Final = Directory("drive.file", field="id_", key="filename")
EVENTS: Final = Directory("calendar.event", field="id_", key="title")
CONTACTS: Final = Directory("mail.address", field="email", key="name")

EventId = Annotated[str, refers("calendar.event")]
FileId = Annotated[str, refers("drive.file")]
Addresses = Annotated[list[str] | None, refers("mail.address")]
Channel = Annotated[str, refers("chat.channel")]
Member = Annotated[str, refers("chat.member")]
End = Annotated[str | None, composed]

EXECUTE: Final[ContextVar[Callable[[str, dict[str, Any]], Any]]] = ContextVar("execute")
"""Runs one of the suite's own tools, by name, in the environment of the present run."""

NOTHING: Final = Untrusted("")


def real(shape: Tool) -> Tool:
    """Return a function with the signature of *shape* that the suite's own tool serves."""
    signature = inspect.signature(shape)

    @functools.wraps(shape)
    def body(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        plain = {
            name: value.reveal() if isinstance(value, Untrusted) else value
            for name, value in given.items()
        }
        return EXECUTE.get()(shape.__name__, plain)

    return body


def facts_of(name: str) -> ToolFacts:
    """Return what the policy states about a tool."""
    spec = spec_of(globals()[name])
    assert spec is not None, f"{name} is not guarded"
    return spec.facts


def texts_in(value: Any) -> list[str]:
    """Return the texts that *value* is or holds; names of fields aside."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for one in value for text in texts_in(one)] if isinstance(value, list) else []


# -- mail ----------------------------------------------------------------------------------


@irreversible("mail.send", external=True)
@writes("mail.sent")
@real
def send_email(
    recipients: Annotated[list[str], refers("mail.address")],
    subject: Untrusted[str],
    body: Untrusted[str],
    attachments: list[dict[str, Any]] | None = None,
    cc: Addresses = None,
    bcc: Addresses = None,
) -> Untrusted[Email]: ...


@irreversible("mail.deletion")
@real
def delete_email(email_id: str) -> str: ...


@reads("mail.inbox", private=True)
@writes("mail.flags")  # it marks them as read
@real
def get_unread_emails() -> Untrusted[list[Email]]: ...


@reads("mail.inbox", private=True)
@real
def get_received_emails() -> Untrusted[list[Email]]: ...


@reads("mail.inbox", private=True)
@real
def search_emails(query: str, sender: str | None = None) -> Untrusted[list[Email]]: ...


@reads("mail.sent", private=True, evidence=True)
@real
def get_sent_emails() -> list[Email]: ...


@reads("mail.drafts", private=True, evidence=True)
@real
def get_draft_emails() -> list[Email]: ...


@reads("contacts.book", private=True, directory=CONTACTS)
@real
def search_contacts_by_name(query: str) -> Untrusted[list[EmailContact]]: ...


@reads("contacts.book", private=True, directory=CONTACTS)
@real
def search_contacts_by_email(query: str) -> Untrusted[list[EmailContact]]: ...


# -- calendar: every change is mailed to the participants ----------------------------------


@reads("calendar.today", evidence=True)
@real
def get_current_day() -> str: ...


@reads("calendar.events", private=True, directory=EVENTS)
@real
def search_calendar_events(
    query: str, date: str | None = None
) -> Untrusted[list[CalendarEvent]]: ...


@reads("calendar.events", private=True)
@real
def get_day_calendar_events(day: str) -> Untrusted[list[CalendarEvent]]: ...


@irreversible("calendar.events", external=True)
@real
def create_calendar_event(
    title: Untrusted[str],
    start_time: str,
    end_time: End,
    description: Untrusted[str] = NOTHING,
    participants: Addresses = None,
    location: Untrusted[str | None] = Untrusted(None),  # noqa: B008 (a constant)
) -> Untrusted[CalendarEvent]: ...


@irreversible("calendar.events", external=True)
@real
def cancel_calendar_event(event_id: EventId) -> Untrusted[str]: ...


@irreversible("calendar.events", external=True)
@real
def reschedule_calendar_event(
    event_id: EventId, new_start_time: str, new_end_time: End = None
) -> Untrusted[CalendarEvent]: ...


@irreversible("calendar.events", external=True)
@real
def add_calendar_event_participants(
    event_id: EventId, participants: Annotated[list[str], refers("mail.address")]
) -> Untrusted[CalendarEvent]: ...


# -- drive: others share files with the user -----------------------------------------------


@reads("drive.files", private=True, directory=FILES)
@real
def search_files_by_filename(filename: str) -> Untrusted[list[CloudDriveFile]]: ...


@reads("drive.files", private=True, directory=FILES)
@real
def search_files(query: str) -> Untrusted[list[CloudDriveFile]]: ...


@reads("drive.files", private=True)
@real
def get_file_by_id(file_id: FileId) -> Untrusted[CloudDriveFile]: ...


@reads("drive.files", private=True)
@real
def list_files() -> Untrusted[list[CloudDriveFile]]: ...


@writes("drive.files", directory=FILES)
@real
def create_file(filename: str, content: Untrusted[str]) -> Untrusted[CloudDriveFile]: ...


@writes("drive.files.content", private=True)
@real
def append_to_file(file_id: FileId, content: Untrusted[str]) -> Untrusted[CloudDriveFile]: ...


@irreversible("drive.files.deletion", private=True)
@real
def delete_file(file_id: FileId) -> Untrusted[CloudDriveFile]: ...


@irreversible("drive.files.sharing", external=True, private=True)
@real
def share_file(
    file_id: FileId, email: Annotated[str, refers("mail.address")], permission: Literal["r", "rw"]
) -> Untrusted[CloudDriveFile]: ...


# -- bank ----------------------------------------------------------------------------------


@reads("bank.account", private=True, evidence=True)
@real
def get_iban() -> str: ...


@reads("bank.account", private=True, evidence=True)
@real
def get_balance() -> float: ...


@reads("bank.transactions", private=True)
@real
def get_most_recent_transactions(n: int = 100) -> Untrusted[list[Transaction]]: ...


@reads("bank.scheduled", private=True, evidence=True)
@real
def get_scheduled_transactions() -> list[Transaction]: ...


@irreversible("bank.transactions", external=True, returns="trusted")
@real
def send_money(recipient: str, amount: float, subject: Untrusted[str], date: str) -> Any: ...


@writes("bank.scheduled")
@real
def schedule_transaction(
    recipient: str, amount: float, subject: Untrusted[str], date: str, recurring: bool
) -> Any: ...


@writes("bank.scheduled")
@real
def update_scheduled_transaction(
    id: int,  # noqa: A002 (the suite's name)
    recipient: str | None = None,
    amount: float | None = None,
    subject: Untrusted[str | None] = Untrusted(None),  # noqa: B008 (a constant)
    date: str | None = None,
    recurring: bool | None = None,
) -> Any: ...


@reads("bank.files", private=True)
@real
def read_file(file_path: str) -> Untrusted[str]: ...


@reads("bank.profile", private=True, evidence=True)
@real
def get_user_info() -> dict[str, str]: ...


@writes("bank.profile")
@real
def update_user_info(
    first_name: str | None = None,
    last_name: str | None = None,
    street: str | None = None,
    city: str | None = None,
) -> dict[str, str]: ...


@irreversible("bank.password")
@real
def update_password(password: str) -> dict[str, str]: ...


# -- chat and web --------------------------------------------------------------------------


@reads("chat.channels", directory=Directory("chat.channel", listing=True))
@real
def get_channels() -> Untrusted[list[str]]: ...


@reads("chat.members", directory=Directory("chat.member", listing=True))
@real
def get_users_in_channel(channel: Channel) -> Untrusted[list[str]]: ...


@reads("chat.messages", private=True)
@real
def read_channel_messages(channel: Channel) -> Untrusted[list[Message]]: ...


@reads("chat.messages", private=True)
@real
def read_inbox(user: str) -> Untrusted[list[Message]]: ...


@irreversible("chat.messages", external=True)
@real
def send_direct_message(recipient: Member, body: Untrusted[str]) -> None: ...


@irreversible("chat.messages", external=True)
@real
def send_channel_message(channel: Channel, body: Untrusted[str]) -> None: ...


@writes("chat.members")
@real
def add_user_to_channel(user: Member, channel: Channel) -> None: ...


@irreversible("chat.members", external=True)
@real
def invite_user_to_slack(user: str, user_email: str) -> None: ...


@irreversible("chat.members")
@real
def remove_user_from_slack(user: str) -> None: ...


@reads("web.pages", external=True)
@real
def get_webpage(url: str) -> Untrusted[str]: ...


@irreversible("web.pages", external=True)
@real
def post_webpage(url: str, content: Untrusted[str]) -> None: ...


# -- travel: the catalogue is the operator's, reviews are anybody's -------------------------


@reads("travel.traveller", private=True, evidence=True)
@real
def get_user_information() -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_all_hotels_in_city(city: str) -> str: ...


@reads("travel.catalogue", evidence=True)
@real
def get_hotels_prices(hotel_names: list[str]) -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_hotels_address(hotel_name: str) -> dict[str, str]: ...


@reads("travel.reviews")
@real
def get_rating_reviews_for_hotels(hotel_names: list[str]) -> Untrusted[dict[str, str]]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_all_restaurants_in_city(city: str) -> str: ...


@reads("travel.catalogue", evidence=True)
@real
def get_restaurants_address(restaurant_names: list[str]) -> dict[str, str]: ...


@reads("travel.reviews")
@real
def get_rating_reviews_for_restaurants(
    restaurant_names: list[str],
) -> Untrusted[dict[str, str]]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_cuisine_type_for_restaurants(restaurant_names: list[str]) -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_dietary_restrictions_for_all_restaurants(
    restaurant_names: list[str],
) -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_contact_information_for_restaurants(restaurant_names: list[str]) -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_price_for_restaurants(restaurant_names: list[str]) -> dict[str, float]: ...


@reads("travel.catalogue", evidence=True)
@real
def check_restaurant_opening_hours(restaurant_names: list[str]) -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_all_car_rental_companies_in_city(city: str) -> str: ...


@reads("travel.catalogue", evidence=True)
@real
def get_car_types_available(company_name: list[str]) -> dict[str, list[str]]: ...


@reads("travel.reviews")
@real
def get_rating_reviews_for_car_rental(company_name: list[str]) -> Untrusted[dict[str, str]]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_car_rental_address(company_name: list[str]) -> dict[str, str]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_car_fuel_options(company_name: list[str]) -> dict[str, list[str]]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_car_price_per_day(company_name: list[str]) -> dict[str, float]: ...


@reads("travel.catalogue", evidence=True)
@real
def get_flight_information(departure_city: str, arrival_city: str) -> str: ...


@writes("travel.reservations", external=True, returns="trusted")
@real
def reserve_hotel(hotel: str, start_day: str, end_day: str) -> str: ...


@writes("travel.reservations", external=True, returns="trusted")
@real
def reserve_restaurant(restaurant: str, start_time: str) -> str: ...


@writes("travel.reservations", external=True, returns="trusted")
@real
def reserve_car_rental(company: str, start_time: str, end_time: str | None) -> str: ...


# -- grants --------------------------------------------------------------------------------

SUITES: Final = ("workspace", "banking", "slack", "travel")

_DAY: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT: Final = rf"{_DAY} [0-9]{{2}}:[0-9]{{2}}"


def grant_for(suite: str, when: Literal["always", "unexposed"] = "always") -> Grant:
    """Return the grant for one suite.

    It lets a standing order be due on any day, an appointment end at any hour, and
    text be added to any file, since that reaches nobody new. All other arguments of
    tools that change state or reach outside need a trusted origin.

    Args:
        suite: its name.
        when: ``"always"`` asks about calls that cannot be taken back only where
            the origin of an argument is in question; ``"unexposed"`` asks about
            each of them once the run has seen untrusted content.
    """
    unasked = preapproved(when)
    ends = either(exactly(None), matches(_MOMENT))
    mail = (
        allow("mail.*"),
        allow("mail.flags"),
        allow("mail.sent"),
        allow("mail.send", unasked),
        allow("mail.deletion", unasked),
        allow("calendar.*"),
        allow("calendar.events", unasked, others(anything), end_time=ends),
        allow("calendar.events", unasked, others(anything), new_end_time=ends),
        allow("calendar.events", unasked),
    )
    permissions = {
        "workspace": (
            *mail,
            allow("contacts.*"),
            allow("drive.files"),
            allow("drive.files.content", file_id=matches("[0-9]+")),
            allow("drive.files.deletion", unasked),
            allow("drive.files.sharing", unasked, others(anything), permission=exactly("r")),
            allow("drive.files.sharing", unasked),
        ),
        "banking": (
            allow("bank.*"),
            allow("bank.transactions", unasked),
            allow("bank.scheduled", others(anything), date=matches(_DAY)),
            allow("bank.scheduled"),
            allow("bank.profile"),
            allow("bank.password", unasked),
        ),
        "slack": (
            allow("chat.*"),
            allow("chat.messages", unasked),
            allow("chat.members", unasked),
            allow("web.pages", unasked),
        ),
        "travel": (*mail, allow("travel.*"), allow("travel.reservations")),
    }
    return Grant(*permissions[suite], id=f"{suite}-{when}")
