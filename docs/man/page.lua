-- How our Markdown looks as a manual page: code is bold, a table is a list, and a link is its words and its target.

local function bold(text) return pandoc.Strong{pandoc.Str(text)} end

local function said(name, cell) -- of a row's middle cells: the type as it is, others with the column's name
  local words = pandoc.utils.blocks_to_inlines(cell.contents)
  local text = pandoc.utils.stringify(words)
  if text == "" or text == "–" then return nil end
  if name == "type" or text == "required" then return words end
  return pandoc.Inlines{pandoc.Str(name .. (name == "default" and " " or ": "))} .. words
end

local function entry(names, cells) -- the first cell names what the last one explains
  local term = pandoc.utils.blocks_to_inlines(cells[1].contents)
  local open = " ("
  for column = 2, #cells - 1 do
    local words = said(names[column], cells[column])
    if words then
      term = term .. {pandoc.Str(open)} .. words
      open = ", "
    end
  end
  if open == ", " then term = term .. {pandoc.Str(")")} end
  return {term, {{pandoc.Para(pandoc.utils.blocks_to_inlines(cells[#cells].contents))}}}
end

local function list(tab)
  local names = {}
  for _, cell in ipairs(tab.head.rows[1].cells) do table.insert(names, pandoc.utils.stringify(cell.contents)) end
  local entries = {}
  for _, row in ipairs(tab.bodies[1].body) do table.insert(entries, entry(names, row.cells)) end
  return pandoc.DefinitionList(entries)
end

local function link(found) -- a path is one in brokerd's source
  local words, to = found.content, found.target
  if to:match("^#") then return words end
  if not to:match("^%a+:") then
    to = to:gsub("#.*", "")
    to = to:match("^%.%./(.*)") or "docs/" .. to
    if to:find(pandoc.utils.stringify(words), 1, true) then return pandoc.Str(to) end
  end
  return pandoc.utils.stringify(words) == to and words or words .. {pandoc.Str(" (" .. to .. ")")}
end

local function plain(found) -- brokerd.toml(5) is bold; a terminal without Unicode has no §
  local before, name, after = found.text:match("^(%(?)([%l][%w_.-]*)(%([1-8]%).*)$")
  if name then return {pandoc.Str(before), bold(name), pandoc.Str(after)} end
  found.text = found.text:gsub("§", "section\u{a0}")
  return found
end

local function heading(found)
  if found.level > 3 then return pandoc.Para{pandoc.Strong(found.content)} end
  if found.level == 2 and not pandoc.utils.stringify(found):match("^%[") then
    found.content = found.content:walk{Str = function(word) return pandoc.text.upper(word.text) end}
  end
  return found
end

return {
  {Str = plain, Table = list},
  {Code = function(found) return bold(found.text) end, Link = link, Header = heading},
}
