"""The Claude Agent SDK: its CLI is paused by a mail, and goes on when a person says yes.

A server plays the model (``models/messages_api.py``). The second half may run in another process.

    sent: [('lead@example.com', 'One mail today.')]
"""

import asyncio
import os
import tempfile

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, query
from models.messages_api import serving

from checkrein import Grant, Untrusted, allow, irreversible
from checkrein.constraints import email_domain
from checkrein.integrations.claude_agent_sdk import Guard, answer, refuse_unguarded
from checkrein.integrations.conversations import Conversations

SENT: list[tuple[str, str]] = []  # in place of a mail server
MAIL = {"to": "lead@example.com", "body": "One mail today."}


@irreversible("mail.send", external=True)
def send_email(to: str, body: Untrusted[str]) -> None:
    """Send a mail."""
    SENT.append((to, body.reveal()))


async def main(directory: str, address: str) -> None:
    guard, talks = Guard([send_email]), Conversations(directory, key=os.urandom(32))
    grant = Grant(allow("mail.send", to=email_domain("example.com")))
    env = {"ANTHROPIC_BASE_URL": address, "ANTHROPIC_API_KEY": "-", "CLAUDE_CONFIG_DIR": directory}
    only = {"tools": [], "strict_mcp_config": True, "setting_sources": [], "env": env}

    with talks.run("thread-7", agent="bot", grant=grant) as run:
        prompt = run.instruct("Send a summary to lead@example.com")
        options = guard.options(ClaudeAgentOptions(**only))
        refuse_unguarded(options)
        *_, end = [one async for one in guard.follow(query(prompt=prompt, options=options))]
        (asked,) = await guard.questions(end)  # the CLI has ended; there is time to answer

    with talks.run("thread-7", agent="bot", grant=grant):
        await guard.take(answer(asked, True, by="dana"))
        options = guard.options(ClaudeAgentOptions(**only, resume=end.session_id))
        async with ClaudeSDKClient(options) as client:
            _ = [one async for one in guard.follow(client.receive_response())]
    talks.close()


with tempfile.TemporaryDirectory() as name, serving("mcp__tools__send_email", MAIL) as address:
    asyncio.run(main(name, address))
print("sent:", SENT)
