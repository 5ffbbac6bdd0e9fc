"""The words that questions are made with, whatever they are about."""

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS: Final = _words(
    """
    a about above actually after again all also although always am an and any anybody anyone
    anything are arent as at be because been before being below between both but by came can
    cannot cant come could couldnt did didnt do does doesnt doing dont down during each either
    else especially etc ever every everybody everyone everything explain explained few for from
    further get gets getting give gives go goes going got had hadnt has hasnt have havent having
    he hello help her here hers herself hey hi him himself his how however i id if ill im in
    into is isnt it its itself ive just kindly know learn let lets like made make makes many may
    maybe me mean means meant might mine more most much must my myself neither never no nor not
    now of off often ok okay on once one only onto or other others our ours out over own perhaps
    please quite rather really regarding said same say says shall she should shouldnt show so
    some somebody somehow someone something sometimes still such summarise summarize talk tell
    than thank thanks that thats the their theirs them themselves then there therefore theres
    these they theyre thing things think this those though through thus to together too toward
    towards under until unto up upon us very via want wants was wasnt we well went were werent
    what whatever whats when whenever where whereas wherever whether which whichever while who
    whoever whom whos whose why will wish with within without wont would wouldnt yes yet you
    youd youll your youre yours yourself yourselves
    """
)
"""Never searched for beside other words; without apostrophes."""

WEAK_WORDS: Final = _words(
    """
    article articles called course describe described detail details difference different
    document documents exactly example examples happen happened happening happens important
    interesting kind kinds mention mentions need needs question reason reasons sort sorts stuff
    sum use used uses using way ways word words work working works
    """
)
"""They only help to order what other words found."""

PRONOUNS: Final = _words("he her him his it its she that their them these they this those")
"""They point back to the question before."""

STOP_PHRASES: Final = _words(
    """
    什么样 是什么 什么是 什么叫 有什么 什么 甚么 怎么样 怎么办 怎么来的 怎么 怎样 如何 为什么
    为什么有 为什么会 为什么要 为什么能 怎么会 怎么能 怎么才能
    为何 为啥 啥 哪些 有哪些 哪里 哪儿 哪个 哪种 哪一 谁 多少 多久 多长 多大 多高
    几个 几种 是否 能否 可否 是不是 能不能 会不会 有没有 可以 能够 请问 请教 告诉
    说说 讲讲 谈谈 一下 一些 一种 一个 一点 关于 以及 还有 那么 这么 这样 那样
    这个 那个 这些 那些 我们 你们 他们 她们 它们 咱们 自己 因为 所以 但是 如果
    的话 时候 我想 想要 知道 了解 觉得 무엇인가 무엇 어떻게 어디 언제 누구 입니까
    인가요 있나요 하나요 까닭
    """
)
"""The same as `STOP_WORDS` in Chinese, with some Korean; where they stand, words end."""

WEAK_PHRASES: Final = _words(
    """
    介绍 解释 说明 描述 讲解 总结 区别 不同 意思 含义 原因 作用 用途 例子 文档
    文章 资料 内容
    """
)

PRONOUN_CHARACTERS: Final = frozenset("它他她这那其")

GRAMMAR: Final = frozenset(
    "的了吗呢吧啊呀么嘛是与和或及在请把被对从向给我你您他她它这那其之就都也还不"
)
"""Chinese characters that mostly stand for grammar; they are parts of other words, too."""
