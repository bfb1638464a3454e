"""What stands in for KoBART's tokenizer and for real sentences, which may not be redistributed.

The tokenizer has the structure of KoBART's: normalizer, pre-tokenizer, decoder and model of the
same kinds, no post-processor, and 229 added tokens of the same four kinds in the same order. Its
words are those of assets/kobart-mini; the emoticons and the sentences were written for this file.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

CONTROL = ("<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>")
UNUSED = tuple(f"<unused{number}>" for number in range(100))
# Many begin as another one does, or hold one; some hold letters, figures, a blank or Hangul.
EMOTICONS = (
    *map("".join, itertools.product(":;8=X", ("", "-", "^"), ")(DPO]")),
    *(">:-)", ">:-))", ":-)8<", "8<:-)", "(:-)", "[:-)", "{:-)", "@:-)", "O:-)", "d:-)", "X:-)8"),
    *("Q |", "; =", "'`", "KI", "VvV", "^^", "ㅜㅜ", "ㅠㅠ"),
)
EMOJI = tuple("😀🤣🐶🐱🐭🐹🐰🦊🐻🐼🐨🐯🦁")
# What no summary of kobart-mini holds, and what may follow any other token all the same: jamo that
# join, marks, and the parts of emoji.
RARE = "".join(
    map(
        chr,
        itertools.chain(
            range(0x1100, 0x1113),
            range(0x1161, 0x1176),
            range(0x11A8, 0x11C3),
            range(0x0300, 0x0308),
            (0x200D, 0xFE0F, 0x20E3),
            range(0x1F1E6, 0x1F200),
            range(0x1F3FB, 0x1F400),
            range(0x1F466, 0x1F46A),
            (0x1F44D, 0x1F680, 0x1F925, 0x2764),
        ),
    )
)

SENTENCES = (
    "어제는 비가 많이 와서 약속을 다음 주로 미뤘다.",
    "버스가 늦게 오는 바람에 회의에 십 분이나 늦었다고 한다.",
    "오후 3시 30분에 2층 회의실(205호)에서 만나기로 했어요.",
    "이번 달 전기 요금은 48,700원, 수도 요금은 12,350원입니다.",
    "“그건 제가 할게요.”라고 그녀는 조용히 말했다.",
    "엄마가 '밥은 먹었니?' 하고 물으셨다.",
    "ㅋㅋㅋㅋ 진짜? 말도 안 돼 ㅠㅠ",
    "ㅇㅇ 알겠어. ㄱㄱ! 이따 봐 ㅎㅎ",
    "아 진짜 ㅡㅡ 또 지각이야...",
    "오늘 기분 최고 😀😄 내일도 이랬으면 좋겠다 :-)",
    "생일 축하해!! 🎂🎉👏🏽 선물은 택배로 보냈어 ❤️",
    "가족여행👨‍👩‍👧‍👦은 제주도🇰🇷로 정했다.",
    "첫째 줄입니다.\n둘째 줄입니다.\n\n넷째 줄입니다.",
    "이름:\t김하늘\n나이:\t스물일곱\n사는 곳:\t춘천",
    "ＫＯＲＥＡ２０２６　전각　문자도　읽습니다！",
    "㈜한빛상사의 ㎏당 단가는 ½로 줄었다. ①안과 ②안 중 ②안을 택했다.",
    "하늘은 맑고 바람은 시원하다.",
    "ᄒᆞᆫ글은 옛글자로도 쓴다.",
    "CPU는 70 %, memory는 12.5 GiB를 쓰고 있습니다.",
    "https://example.com/a?b=1&c=2 를 열어 보시고 help@example.com 으로 답장 주세요.",
    "2026-12-01 09:00 ~ 18:00 (점심 12:00~13:00)",
    "python3 -m venv .venv && source .venv/bin/activate",
    "그 책은 《나무의 시간》이고, 지은이는 「숲」이라는 시도 썼다.",
    "값은 1+1=2, 3×4=12, 10÷4=2.5, a<b>c 입니다.",
    "똠방각하 펲시콜라 뷁 쀍 꿿",
    "漢字와 かな, Ελληνικά, русский 글자가 섞여 있다.",
    "#Person1#: 내일 시간 있어요?\n#Person2#: 네, 저녁에는 괜찮아요.",
    "제 번호는 010-0000-0000이고요, 우편번호는 24341이에요.",
    "네.",
    "음…… 글쎄요, 잘 모르겠는데요?!",
    "…그래서 결국 안 갔어요. 아니, 못 갔어요.",
    "할머니께서 텃밭에서 딴 고추며 상추, 가지를 한 보따리 싸 주셨다.",
    "눈이 그치자 아이들이 우르르 뛰어나와 골목마다 눈사람을 세웠다.",
    "도서관 3층 열람실은 수리 중이라 다음 달 10일까지 문을 닫습니다.",
    "기차가 대전역을 지날 무렵에야 지갑을 두고 온 것을 알았다.",
    "팀장님은 보고서를 금요일까지, 발표 자료를 월요일까지 달라고 하셨습니다.",
    "고양이가 키보드 위를 지나가서 ㅁㄴㅇㄹ;;ㅣㅏㅓ 라고 보내졌어.",
    "줄임말(예: 버카충, 별다줄)은 세대에 따라 뜻을 모르기도 한다.",
    "환율은 1달러에 1,234.56원, 100엔에 ₩901.2였다.",
    "  앞뒤에 공백이 있고   가운데에도   있다  ",
    "가나다라마바사아자차카타파하거너더러머버서어저처커터퍼허",
    "비밀번호를 세 번 틀리면 5분 동안 로그인할 수 없습니다 ㅠㅠ :-( 8-)",
)


def write_tokenizer(folder: Path, mini: Path) -> Path:
    """Write the three files of the tokenizer.

    Args:
        folder: Where to; it is made.
        mini: The folder of assets/kobart-mini.
    """
    folder.mkdir()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(mini / name, folder / name)
    definition = json.loads((mini / "tokenizer.json").read_text(encoding="utf-8"))
    added = (*CONTROL, *UNUSED, *EMOTICONS, *EMOJI)
    kind = {key: value for key, value in definition["added_tokens"][0].items() if key != "content"}
    definition["added_tokens"] = [
        {**kind, "id": number, "content": content} for number, content in enumerate(added)
    ]
    words = sorted(definition["model"]["vocab"], key=definition["model"]["vocab"].__getitem__)
    tokens = dict.fromkeys((*added, *words, *RARE))
    definition["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    text = json.dumps(definition, ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return folder
