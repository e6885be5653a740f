"""The form for a new job is made from the schema of the model that is chosen."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.page import draw, is_in, submitted
from tests.studio import Studio

OF = """async (schema) => {
    const { fieldsOf, limitsOf } = await import("/page/schema.js");
    return fieldsOf(schema).map((field) => [field.name, field.control, limitsOf(field)]);
}"""


def test_another_model_has_another_form(page: Page) -> None:
    expect(page.locator("#model")).to_have_value("scenes")
    expect(page.locator("#field-temperature")).to_be_visible()
    expect(page.locator("#field-steps")).to_have_count(0)
    page.select_option("#model", "painter")
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_have_value("2")
    expect(steps).to_have_attribute("min", "1")
    expect(steps).to_have_attribute("max", "200")
    expect(steps).to_have_accessible_description("More take longer. 1 to 200.")
    expect(page.get_by_label("Width")).to_have_attribute("step", "8")
    expect(page.get_by_label("Style").locator("option")).to_have_text(["dawn", "noon", "dusk"])
    expect(page.get_by_role("switch", name="Grain")).not_to_be_checked()
    expect(page.get_by_label("Negative prompt")).to_have_attribute("maxlength", "500")
    page.select_option("#model", "scenes")
    expect(page.locator("#field-steps")).to_have_count(0)


def test_what_the_form_says_is_what_is_drawn(page: Page, studio: Studio) -> None:
    page.select_option("#model", "painter")
    page.select_option("#field-style", "dusk")
    page.check("#field-grain")
    page.fill("#field-width", "64")
    page.fill("#field-negative_prompt", "rain")
    page.get_by_text("Files", exact=True).click()
    page.select_option("#field-format", "webp")
    card = draw(page, "hills", seed="5")
    is_in(card, "succeeded")
    params = studio.client.record(str(card.get_attribute("data-job"))).params
    wanted = {
        "model": "painter",
        "style": "dusk",
        "grain": True,
        "width": 64,
        "height": 96,
        "negative_prompt": "rain",
        "seed": 5,
        "steps": 2,
        "format": "webp",
    }
    assert {name: params[name] for name in wanted} == wanted
    expect(card.locator("img")).to_have_js_property("naturalWidth", 64)


def test_a_value_outside_its_limits_is_refused_before_it_is_sent(page: Page) -> None:
    page.select_option("#model", "painter")
    page.fill("#field-prompt", "hills")
    page.get_by_text("Files", exact=True).click()
    page.fill("#field-quality", "101")
    page.get_by_text("Files", exact=True).click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.click("#send")
    expect(page.locator("form details")).to_have_attribute("open", "")
    expect(page.locator("#field-quality")).to_be_focused()
    assert "POST" not in asked


def test_what_only_the_gateway_refuses_is_said_in_its_words(page: Page) -> None:
    page.fill("#field-prompt", "hills")
    page.get_by_text("Files", exact=True).click()
    page.fill("#field-quality", "80")
    page.click("#send")
    expect(page.locator("#form-error")).to_contain_text("png has no quality")


def test_a_model_that_is_broken_cannot_be_chosen(page: Page) -> None:
    option = page.locator("#model option", has_text="broken")
    expect(option).to_have_text("broken (broken)")
    expect(option).to_be_disabled()


def test_what_was_typed_is_there_after_a_reload_and_for_another_model(page: Page) -> None:
    page.fill("#field-prompt", "a red hill")
    page.fill("#field-seed", "12")
    page.select_option("#model", "painter")
    page.fill("#field-steps", "7")
    page.reload()
    expect(page.locator("#model")).to_have_value("painter")
    expect(page.locator("#field-prompt")).to_have_value("a red hill")
    expect(page.locator("#field-seed")).to_have_value("12")
    expect(page.locator("#field-steps")).to_have_value("7")


def test_describing_has_a_form_of_its_own(page: Page) -> None:
    page.get_by_role("radio", name="Describe").check()
    expect(page.locator("#drop")).to_be_visible()
    expect(page.get_by_label("Beam width")).to_have_value("4")
    expect(page.locator("#model option")).to_have_text(["scenes (default)"])
    expect(page.locator("#send")).to_be_hidden()
    page.get_by_role("radio", name="Draw").check()
    expect(page.locator("#field-prompt")).to_be_visible()


def test_enter_sends_and_with_shift_it_makes_a_line(page: Page) -> None:
    page.focus("#field-prompt")
    page.keyboard.type("hills")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("and more")
    card = submitted(page, lambda: page.keyboard.press("Enter"))
    expect(card).to_contain_text(re.compile(r"hills\s+and more"))


@pytest.mark.parametrize(
    ("property_", "control", "limits"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9, "default": 2}, "number", "1 to 9."),
        ({"type": "integer", "exclusiveMinimum": 0, "default": 2}, "number", "At least 1."),
        ({"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}, "range", ""),
        ({"type": "number", "minimum": 0}, "number", "At least 0."),
        ({"type": "boolean", "default": True}, "switch", ""),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None}, "choice", ""),
        ({"enum": ["a", "b"], "default": "a"}, "choice", ""),
        ({"const": 4}, "choice", ""),
        ({"type": "string", "maxLength": 20}, "text", "Up to 20 characters."),
        ({"type": "string", "default": ""}, "long", ""),
        (
            {"type": "array", "items": {"type": "integer"}, "default": []},
            "list",
            "Separated by commas.",
        ),
        ({"$ref": "#/$defs/BlobRef"}, "picture", ""),
        ({"type": "object", "default": {}}, None, ""),
    ],
)
def test_each_type_has_its_control(
    page: Page, property_: dict[str, object], control: str | None, limits: str
) -> None:
    found = page.evaluate(OF, {"type": "object", "properties": {"one": property_}})
    assert found == [["one", control, limits]]
