"""The page: a chat with pictures in both directions, on which drawings appear scale by scale."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is reported to anyone

import gradio as gr
from fastapi import FastAPI

from vargpt_lightning.inference.assistant import Conversation
from vargpt_lightning.inference.changed_settings import idle_parts_of
from vargpt_lightning.inference.missed_drawings import MISSED, missed_drawing
from vargpt_lightning.inference.sizes import size_named, size_names
from vargpt_lightning.models.generation.answers import MOST_SEED, GenerationSettings
from vargpt_lightning.models.parts import names as part_names
from vargpt_lightning.models.parts import part_lines, parts_of
from vargpt_lightning.serving.engine import (
    Drawn,
    Engine,
    EngineRequest,
    Event,
    Failed,
    Finished,
    ImagePreview,
    TextDelta,
)
from vargpt_lightning.serving.incoming_pictures import read_picture
from vargpt_lightning.serving.limits import RateLimit, RefusedRequestError, refusal
from vargpt_lightning.serving.openai_messages import check_letters
from vargpt_lightning.serving.openai_requests import changed_parts
from vargpt_lightning.serving.page_files import HOUR, PageFiles
from vargpt_lightning.serving.page_guard import COOKIE, PageGuard, owner_of
from vargpt_lightning.serving.streams import Stream
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from vargpt_lightning.serving.gate import App

CSS = """
footer { display: none !important }
#chat img { width: 256px; height: 256px; max-width: 100%; object-fit: contain }
#chat button[aria-label="Share"] { display: none !important }
#scales .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; width: 100% }
#scales img { object-fit: contain }
#examples { display: flex; flex-flow: row wrap; gap: 6px }
#examples button { flex: 0 1 auto; min-width: 0; width: auto }
"""
EXAMPLES = 6


@dataclass
class Session:
    """What one tab of a browser has said and seen; kept on the server.

    Attributes:
        conversation: what the model is given next time.
        shown: the messages of the chat, the pictures as paths.
        scales: the drawing of the last answer after each scale.
        drawing: the path of that drawing, when it is finished.
        note: a line about the last answer.
        again: the last request, where it was one to draw and nothing was drawn.
    """

    conversation: Conversation = field(default_factory=Conversation)
    shown: list[dict[str, Any]] = field(default_factory=list)
    scales: list[str] = field(default_factory=list)
    drawing: str | None = None
    note: str = ""
    again: str = ""


class Page:
    """What the page does, and how it looks.

    Args:
        engine: answers.
        rate: counts requests, those to the API too.
        name: what the model is called.
        examples: requests that are offered.
    """

    def __init__(self, engine: Engine, rate: RateLimit, name: str, examples: Sequence[str] = ()) -> None:
        self.engine, self.rate, self.name, self.examples = engine, rate, name, list(examples)[:EXAMPLES]
        self.limits, self.assistant = engine.limits, engine.assistant
        self.running: dict[str, EngineRequest | None] = {}  # by the tab; None while its pictures are read
        self.files = PageFiles()

    def blocks(self) -> gr.Blocks:
        """Return the page."""
        session = gr.State(None, time_to_live=HOUR)
        names = gr.JSON(visible=False, render=False)  # the guard writes the names of the message's pictures here
        with gr.Blocks(title=self.name, fill_height=True, analytics_enabled=False) as page:
            session.render()
            names.render()
            with gr.Row():
                with gr.Column(scale=3):
                    # Without the button "share": it would send the chat to a host elsewhere.
                    look: dict[str, Any] = {"height": "65vh", "render_markdown": False, "buttons": ["copy"]}
                    chat = gr.Chatbot(label=self.name, elem_id="chat", feedback_options=None, **look)
                    with gr.Row(elem_id="examples", visible=bool(self.examples)):
                        offered = [gr.Button(text, size="sm", min_width=0) for text in self.examples]
                    box = gr.MultimodalTextbox(
                        placeholder="Ask, ask for a picture, or add pictures to ask about",
                        file_types=["image"],
                        file_count="multiple",
                        sources=["upload"],
                        max_plain_text_length=self.limits.prompt_characters,
                        show_label=False,
                        elem_id="box",
                    )
                    with gr.Row():
                        stop = gr.Button("Stop", elem_id="stop")
                        new = gr.Button("New conversation", elem_id="new")
                with gr.Column(scale=1, min_width=300):
                    # Gallery's own label and captions would cover the pictures.
                    gr.Markdown("The drawing, scale by scale")
                    scales = gr.Gallery(
                        show_label=False,
                        elem_id="scales",
                        columns=3,
                        height=250,
                        interactive=False,
                        buttons=["fullscreen", "download"],
                    )
                    download = gr.DownloadButton("Download the drawing", interactive=False, elem_id="download")
                    note = gr.Markdown(elem_id="note")
                    again = gr.Button("Ask again in a new conversation", visible=False, elem_id="again")
                    settings = self._settings()
            shown = [chat, scales, download, note, again]
            how: dict[str, Any] = {
                "outputs": [box, session, *shown],
                "concurrency_limit": self.limits.queue,
                "show_progress": "hidden",
                "api_visibility": "private",
            }
            asked: list[Any] = [box.submit(self.answer, [box, names, session, *settings], **how)]
            asked += [
                button.click(self._offer(text), [session, *settings], **how)
                for button, text in zip(offered, self.examples, strict=True)
            ]
            asked.append(again.click(self.answer_again, [session, *settings], **how))
            stop.click(self.stop, None, None, api_visibility="private")
            for forgotten in (new.click, chat.clear):
                forgotten(self.forget, None, [session, *shown], cancels=asked, api_visibility="private")
            page.unload(self.stop)
        return page

    def _settings(self) -> list[gr.components.Component]:
        """The controls, in the order in which `answer` takes them."""
        visual = self.assistant.settings.visual or self.assistant.model.sampling_settings()
        codes = self.assistant.model.image_tokenizer.vocabulary
        words = self.assistant.settings
        most = self.limits.new_tokens
        sizes = size_names(self.assistant.model.config.tokenizer)
        with gr.Accordion("Settings", open=True):
            return [
                gr.Slider(0, 10, visual.cfg, step=0.1, label="Guidance", info="0 turns it off", elem_id="cfg"),
                gr.Slider(0, codes, min(visual.top_k, codes), step=1, label="Top-k", info="codes kept; 0 keeps all"),
                gr.Slider(0.01, 1, visual.top_p or 1, step=0.01, label="Top-p", info="probability kept; 1 keeps all"),
                gr.Number(
                    -1,
                    precision=0,
                    minimum=-1,
                    maximum=MOST_SEED,
                    label="Seed",
                    info="-1: another one each time",
                    elem_id="seed",
                ),
                gr.Slider(0, 2, words.temperature, step=0.05, label="Temperature of text", info="0: the likeliest"),
                gr.Slider(1, most, min(words.max_new_tokens, most), step=1, label="Words at most", info="in tokens"),
                gr.Textbox(
                    part_lines(visual.parts),
                    lines=2,
                    max_lines=6,
                    label="Parts of the sampler",
                    info=f"one a line, with arguments; there are {', '.join(part_names())}",
                    placeholder="guided_scales stop=3",
                    elem_id="parts",
                ),
                gr.Dropdown(
                    sizes,
                    value=sizes[words.size],
                    visible=len(sizes) > 1,
                    label="Size of drawings",
                    info="width and height in pixels",
                    elem_id="size",
                ),
            ]

    def _offer(self, text: str) -> Callable[..., AsyncIterator[tuple[Any, ...]]]:
        """What the button of an example does: it asks for it."""

        async def offer(
            session: Session | None,
            cfg: float,
            top_k: float,
            top_p: float,
            seed: float,
            temperature: float,
            length: float,
            parts: str,
            size: str,
            request: gr.Request,
        ) -> AsyncIterator[tuple[Any, ...]]:
            how = (cfg, top_k, top_p, seed, temperature, length, parts, size)
            async for shown in self.answer({"text": text}, [], session, *how, request):
                yield shown

        return offer

    async def answer_again(
        self,
        session: Session | None,
        cfg: float,
        top_k: float,
        top_p: float,
        seed: float,
        temperature: float,
        length: float,
        parts: str,
        size: str,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Ask the last request anew, in a conversation of its own."""
        text = session.again if session else ""
        how = (cfg, top_k, top_p, seed, temperature, length, parts, size)
        async for shown in self.answer({"text": text}, [], Session() if text else session, *how, request):
            yield shown

    async def answer(
        self,
        message: dict[str, Any],
        names: list[str],
        session: Session | None,
        cfg: float,
        top_k: float,
        top_p: float,
        seed: float,
        temperature: float,
        length: float,
        parts: str,
        size: str,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Answer what stands in the box, and show the answer while it comes."""
        session = session or Session()
        text = message.get("text") or ""
        if not text.strip() and not names:
            yield gr.skip(), session, *self._show(session)
            return
        tab, client = request.session_hash or "", request.client.host if request.client else "unknown"
        owner = owner_of(client, _cookie(request))
        if tab in self.running:
            session.note = "**the last answer is still being made; stop it first**"
            yield gr.skip(), session, *self._show(session)
            return
        ticket = self.running[tab] = None
        try:
            self.rate.admit(client)
            paths = [str(self.files.path(owner, name)) for name in names]
            files = [self.files.read(owner, name) for name in names]
            # Large pictures take their time, in which others are answered.
            conversation = await asyncio.to_thread(self._ask, session, text, files)
            chosen = int(seed) if seed is not None and seed >= 0 else secrets.randbelow(2**31)
            how = self._how(cfg, int(top_k), top_p, chosen, temperature, int(length), parts, size)
            forgotten = self.assistant.forget_oldest(conversation)
            ticket = self.running[tab] = EngineRequest(conversation, how, sketches=True)
            stream = Stream.of([ticket])
            self.engine.submit([ticket])
            said = [*({"path": path} for path in paths), *([text] if text else [])]
            session.shown.append({"role": "user", "content": said})
            session.shown.append({"role": "assistant", "content": ["…"]})
            session.note = f"Seed {chosen}." + (f" The {forgotten} oldest turns are forgotten." if forgotten else "")
            session.note += self._idle(how)
            session.scales, session.drawing, session.again = [], None, ""
            said_back: list[Any] = []
            yield None, session, *self._show(session)
            async for _, event in stream.events():
                self._take(session, said_back, event, conversation, owner)
                session.shown[-1] = {"role": "assistant", "content": list(said_back) or ["…"]}
                yield gr.skip(), session, *self._show(session)
        except UserError as error:
            session.note = f"**{error}**"
            yield gr.skip(), session, *self._show(session)
        finally:  # also where the browser has left
            if ticket is not None:
                ticket.cancel()
            self.running.pop(tab, None)

    def _how(
        self, cfg: float, top_k: int, top_p: float, seed: int, temperature: float, length: int, parts: str, size: str
    ) -> GenerationSettings:
        words = self.assistant.settings
        visual = words.visual or self.assistant.model.sampling_settings()
        visual = replace(visual, cfg=cfg, top_k=top_k, top_p=top_p)
        check_letters(len(parts or ""), self.limits, "parts")
        return replace(
            words,
            visual=changed_parts(self.assistant, visual, parts_of((parts or "").splitlines()), self.limits),
            seed=seed,
            temperature=temperature,
            max_new_tokens=min(length, self.limits.new_tokens),
            max_images=min(words.max_images, self.limits.images),
            size=size_named(size, self.assistant.model.config.tokenizer),
        )

    def _idle(self, how: GenerationSettings) -> str:
        """What is said of parts that change nothing here."""
        idle = idle_parts_of(self.assistant, how.visual) if how.visual else {}
        return "".join(f" {name} changes nothing here: {reason}." for name, reason in idle.items())

    def _ask(self, session: Session, text: str, files: Sequence[bytes]) -> Conversation:
        """The conversation with the new turn; the session's own stays as it is until there is an answer."""
        check_letters(len(text), self.limits, "text")
        conversation = session.conversation.copy()
        before = sum(key.startswith("seen-") for key in conversation.pictures)
        if before + len(files) > self.limits.pictures:
            most = self.limits.pictures
            raise RefusedRequestError(f"a conversation has {most} pictures at most; begin a new one")
        pictures = [self.assistant.see(read_picture(data, self.limits)) for data in files]
        conversation.ask(text, {f"seen-{before + number}": picture for number, picture in enumerate(pictures)})
        return conversation

    def _take(self, session: Session, parts: list[Any], event: Event, asked: Conversation, owner: str) -> None:
        """Show an event: words and the picture in the making stand at the end of `parts`."""
        if isinstance(event, TextDelta):
            if parts and isinstance(parts[-1], str):
                parts[-1] += event.text
            else:
                parts.append(event.text)
        elif isinstance(event, ImagePreview):
            entry = {"path": self._save(event.image, owner), "alt_text": f"scale {event.number} of {event.total}"}
            if event.number == 1:
                session.scales = []
                parts.append(entry)
            else:
                parts[-1] = entry
            session.scales = [*session.scales, entry["path"]]
        elif isinstance(event, Drawn):
            session.drawing = self._save(event.part.image, owner)
            parts[-1] = {"path": session.drawing, "alt_text": "a drawing"}
        elif isinstance(event, Failed):
            parts.append(f"({refusal(event.error)})")
            session.note = "**There is no answer, and the question was removed.**"
        elif isinstance(event, Finished):
            self._finish(session, parts, event, asked)

    def _finish(self, session: Session, parts: list[Any], event: Finished, asked: Conversation) -> None:
        """Keep the answer, and say what is odd about it."""
        if missed_drawing(asked, event.answer):
            session.again = asked.turns[-1].text
            session.note += f" **{MISSED}**"
        asked.add(event.answer)
        session.conversation = asked
        stopped = event.answer.finished == "stopped"
        if stopped:
            session.note += " Stopped."
        if not parts:
            parts.append("(stopped)" if stopped else "(an empty answer)")

    def _save(self, image: Image.Image, owner: str) -> str:
        content = io.BytesIO()
        image.save(content, "PNG")
        return str(self.files.folder / self.files.add(owner, content.getvalue()))

    def _show(self, session: Session) -> tuple[Any, ...]:
        button = gr.DownloadButton(value=session.drawing, interactive=session.drawing is not None)
        again = gr.Button(visible=bool(session.again))
        return list(session.shown), list(session.scales), button, session.note, again

    def stop(self, request: gr.Request) -> None:
        """End the answer of this tab; what is there of it stays."""
        if ticket := self.running.get(request.session_hash or ""):
            ticket.cancel()

    def forget(self, request: gr.Request) -> tuple[Any, ...]:
        """Begin again."""
        self.stop(request)
        session = Session()
        return session, *self._show(session)


def _cookie(request: gr.Request) -> str | None:
    return dict(request.cookies).get(COOKIE)


@contextmanager
def _kept_in(folder: str) -> Iterator[None]:
    """Let Gradio's components take a folder for their own, so that they copy nothing that is in it."""
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    os.environ[name] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def page_app(engine: Engine, rate: RateLimit, name: str, lifespan: Any = None, examples: Sequence[str] = ()) -> App:
    """Return the page as an application, behind its guard."""
    page = Page(engine, rate, name, examples)
    folder = str(page.files.folder)
    with _kept_in(folder):
        blocks = page.blocks()
        blocks.queue(max_size=engine.limits.queue)
        app = gr.mount_gradio_app(
            FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None),
            blocks,
            path="/",
            css=CSS,
            theme=gr.themes.Default(  # fonts of the system, none from elsewhere
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
            allowed_paths=[folder],
            max_file_size=engine.limits.picture_bytes,
            show_error=False,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
        )
    return PageGuard(app, blocks.fns, page.files, engine.limits)
