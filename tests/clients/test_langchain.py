"""LangChain: its tool that draws, and its chat with a picture."""

from pathlib import Path

from crossmodal.jobs.record import JobState
from tests.clients.conftest import World
from tests.clients.environments import python_with
from tests.waiting import until

PACKAGES = ("langchain-openai==1.7.4", "langchain-community==0.4.2", "openai==3.57.0")


def test_its_tool_draws_and_its_chat_describes(world: World, full_url: str, circle: Path) -> None:
    world.run(
        python_with(*PACKAGES),
        "langchain_tool.py",
        circle,
        FULL_URL=full_url,
        OPENAI_API_BASE=f"{world.gateway.url}/v1",
    )
    until(lambda: world.states("chain left") == [JobState.CANCELED])
