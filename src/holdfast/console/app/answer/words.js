// What is said in and around one answer.

import { speak } from "../i18n.js";

export const say = speak({
  answer: ["Answer", "回答"],
  answer_actions: ["What to do with this answer", "对此回答的操作"],
  writing: ["Writing", "正在回答"],
  stopping: ["Stopping", "正在停止"],
  searching: ["Searching", "正在检索"],
  step_writing: ["Writing the answer", "正在撰写回答"],
  seconds: ["{} s", "{} 秒"],
  minutes: ["{} min {} s", "{} 分 {} 秒"],
  reasoning: ["Reasoning", "思考过程"],
  thinking: ["Thinking", "正在思考"],
  thought_for: ["Thought for {}", "思考了 {}"],
  tool: ["Tool call", "工具调用"],
  fallback: ["{} answers instead, because the service before gave nothing.", "前一个服务没有给出回答，现由 {} 回答。"],

  completed: ["Complete", "回答完毕"],
  cancelled: ["Stopped by you", "已由你停止"],
  client_disconnected: ["Stopped, because nobody was reading", "无人阅读，已停止"],
  interrupted: ["Interrupted", "回答中断"],
  failed: ["No answer", "未能回答"],
  kept: ["What had arrived is kept.", "已收到的内容都已保留。"],
  cut_short: ["The service ended it at its length limit.", "服务因长度限制结束了回答。"],
  filtered: ["The service held a part of it back.", "服务过滤了部分内容。"],
  no_text: ["The service ended without any text.", "服务结束了，但没有文字。"],
  upstream_error: ["The service that writes the answers failed.", "生成回答的服务出错了。"],
  upstream_empty: ["The service sent no answer.", "服务没有返回内容。"],
  upstream_timeout: ["The service took too long.", "服务响应超时。"],
  upstream_truncated: ["The service broke off in the middle.", "服务在中途断开了。"],
  upstream_unreachable: ["The service cannot be reached.", "无法连接到服务。"],
  limit: ["The answer grew beyond what is allowed here.", "回答超过了允许的长度。"],
  storage_error: ["The answer could not be saved any further.", "回答无法继续保存。"],
  server_shutdown: ["The server was shut down.", "服务器已关闭。"],
  server_crash: ["The server stopped in the middle of the answer.", "服务器在回答途中停止了。"],
  again: ["Ask again", "重新回答"],
  go_on: ["Go on asking", "继续提问"],
  go_on_text: ["Please go on.", "请继续。"],

  copy: ["Copy", "复制"],
  copied: ["Copied", "已复制"],
  copy_failed: ["The browser does not allow copying here.", "浏览器不允许在此复制。"],
  good: ["Good answer", "回答得好"],
  bad: ["Bad answer", "回答得不好"],
  comment: ["What should be known about it? (if you like)", "想补充说明吗？（可不填）"],
  send: ["Send", "发送"],
  close: ["Close", "关闭"],
  thanks: ["Thank you.", "谢谢。"],
  version_before: ["Earlier version", "上一个版本"],
  version_after: ["Later version", "下一个版本"],
  versions: ["Version {} of {}", "第 {} 个版本，共 {} 个"],
  about: ["About this answer", "关于此回答"],
  by: ["Answered by", "回答者"],
  why: ["Chosen because", "选择原因"],
  "the default": ["the default", "默认服务"],
  "asked for by name": ["asked for by name", "由你指定"],
  "the only upstream": ["the only upstream", "唯一的服务"],
  "the first upstream configured": ["the first upstream configured", "配置中的第一个服务"],
  took: ["Time", "用时"],
  tokens: ["Tokens", "词元"],
  tokens_used: ["{} in, {} out", "输入 {}，输出 {}"],
  tokens_short: ["{} tokens", "{} 词元"],
  asked_at: ["Asked", "提问时间"],

  source: ["Source {}", "来源 {}"],
  sources: ["Sources", "参考来源"],
  found: ["Found {} sources", "找到 {} 个来源"],
  found_one: ["Found 1 source", "找到 1 个来源"],
  not_cited: ["{} more that the answer does not cite", "另有 {} 个未被引用"],
  untitled: ["Untitled", "未命名"],
  relevance: ["Relevance {}", "相关度 {}"],
  open_page: ["Open the page", "打开网页"],
  open_document: ["Read it in the document", "在文档中查看"],
  passage_gone: [
    "The document has changed since: the passage is not in it any more.",
    "文档已有改动：其中已没有这段文字。",
  ],
  no_document: ["The document cannot be shown.", "无法显示此文档。"],
  table: ["Table", "表格"],
});

/** How long something took, for people. */
export function duration(ms) {
  const tenths = Math.round(ms / 100);
  if (tenths < 1) return say("seconds", "< 0.1");
  if (tenths < 100) return say("seconds", (tenths / 10).toFixed(1));
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return say("seconds", seconds);
  return say("minutes", Math.floor(seconds / 60), seconds % 60);
}
