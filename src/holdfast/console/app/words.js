// What the page says around the answers, in English and Chinese.

import { speak } from "./i18n.js";

export const say = speak({
  tagline: ["Ask. The answer stays.", "放心提问，回答不会丢"],
  promise: [
    "What you see is already safe on disk. Reload the page, lose the network, kill the server: " +
      "it is all still here.",
    "你看到的每一个字都已经写入磁盘。刷新页面、断开网络、强行结束服务器，内容都还在这里。",
  ],
  starters: ["Questions to begin with", "可以这样开始"],

  new: ["New conversation", "新对话"],
  conversations: ["Conversations", "对话列表"],
  conversation: ["Conversation", "对话"],
  untitled: ["Untitled", "未命名"],
  search: ["Search conversations", "搜索对话"],
  nothing_found: ["No conversation has “{}” in it.", "没有对话包含“{}”。"],
  no_conversations: ["Your conversations will be here.", "你的对话会显示在这里。"],
  more: ["More", "更多"],
  more_about: ["More about “{}”", "“{}”的更多操作"],
  close_list: ["Close the list", "关闭列表"],
  live: ["An answer is being written", "正在生成回答"],
  today: ["Today", "今天"],
  yesterday: ["Yesterday", "昨天"],
  week: ["Last 7 days", "最近 7 天"],
  month: ["Last 30 days", "最近 30 天"],

  rename: ["Rename", "重命名"],
  name: ["Name of the conversation", "对话名称"],
  delete: ["Delete", "删除"],
  delete_title: ["Delete this conversation?", "删除这个对话？"],
  delete_text: [
    "“{}” is erased with everything in it. It cannot be brought back.",
    "“{}”及其全部内容将被彻底删除，无法恢复。",
  ],
  cancel: ["Cancel", "取消"],
  deleted: ["Deleted", "已删除"],
  deleted_elsewhere: ["This conversation was deleted in another tab.", "这个对话已在另一个标签页中删除。"],
  renamed: ["Renamed", "已重命名"],
  export_markdown: ["Export as Markdown", "导出为 Markdown"],
  export_json: ["Export as JSON", "导出为 JSON"],
  exported: ["Exported", "已导出"],

  ask: ["Ask a question", "输入问题"],
  send: ["Send", "发送"],
  stop: ["Stop (Esc)", "停止（Esc）"],
  hint: ["Enter sends, Shift+Enter begins a new line", "Enter 发送，Shift+Enter 换行"],
  upstream: ["Who answers", "由谁回答"],
  automatic: ["Automatic", "自动选择"],
  not_answering: ["{} (not answering)", "{}（无响应）"],
  preset: ["Preset of the new conversation", "新对话的预设"],
  no_preset: ["No preset", "不使用预设"],
  latest: ["Jump to the latest", "跳到最新内容"],
  skip: ["Skip to the question", "跳到输入框"],

  you: ["You", "你"],
  edit: ["Edit the question", "编辑问题"],
  edit_hint: [
    "The question is asked anew; what came after it here is taken out of the conversation.",
    "将重新提问；此后的内容会从对话中移除。",
  ],
  copy: ["Copy the question", "复制问题"],
  copied: ["Copied", "已复制"],
  loading: ["Loading the conversation", "正在加载对话"],
  earlier: ["Show earlier messages", "显示更早的消息"],

  writing: ["Writing", "正在回答"],
  reconnecting: ["Reconnecting", "正在重新连接"],
  connected: ["Connected again", "已重新连接"],
  dismiss: ["Dismiss", "知道了"],

  key_wanted: ["This server wants a key.", "此服务器需要密钥。"],
  key_wrong: ["This key is not valid.", "密钥无效。"],
  key_hint: ["It is kept until this tab is closed.", "密钥只保留到关闭此标签页为止。"],
  enter: ["Go on", "继续"],

  shortcuts: ["Keyboard shortcuts", "键盘快捷键"],
  close: ["Close", "关闭"],
  key_send: ["Send the question", "发送问题"],
  key_line: ["Begin a new line", "换行"],
  key_stop: ["Stop the answer, close what is open", "停止回答，关闭打开的内容"],
  key_new: ["New conversation", "新对话"],
  key_search: ["Search conversations", "搜索对话"],
  key_focus: ["Go to the question", "跳到输入框"],
  key_edit: ["Edit the last question, from an empty field", "在空输入框中编辑上一个问题"],
  key_help: ["These shortcuts", "显示快捷键"],

  // What the server refuses, by its codes.
  not_found: ["This conversation does not exist.", "这个对话不存在。"],
  run_active: ["An answer is still being written here.", "这里还有一个回答正在生成。"],
  server_unreachable: ["The server cannot be reached.", "无法连接到服务器。"],
  too_many_requests: ["Too many questions for now. Try again in a while.", "提问过于频繁，请稍后再试。"],
  too_large: ["This is too long to be sent.", "内容太长，无法发送。"],
  forbidden: ["This key does not allow that.", "此密钥没有相应的权限。"],
});
