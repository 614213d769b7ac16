"""
What Redis does in one step: the Lua scripts, in the 6.2 subset.

Knows keys only by the names it is given. Every script may be sent twice, because the
client sends a command again when its answer was lost: the second run finds what the
first one left (the claim's token, the lease, the turn's id) and changes nothing more.
All keys of a script, those it makes up from names in other keys included, carry one
hash tag.

A *token* is an entry in a stream of `ready` lanes or `out`boxes. There is at most one
for each lane and one for each outbox, and it exists as long as there is work there.
Whoever the consumer group last gave it to holds it, until it is renewed no more and
the group gives it to another. A *lease* is a name that its holder makes up; the holder
writes it down when it begins, and only while it stands there may anything be committed.

Fields of `meta`:
    token, lease, attempts   of the lane: its token, who works on it, how often its
                             head was begun
    orphaned                 that whoever had begun before it died; the lease that has
                             counted its attempt all the same
    stop                     the turn that the customer wants stopped
    acting                   the turn that may have done something outside that must not
                             be done twice; it stays until that turn ends
    turn, committed          the turn committed last, and under which lease
    explained                the last turn with a record
    people_at                when the keys of who spoke were last renewed
    out_token, out_lease     of the outbox
    sending, tries           the reply being sent, how often it could not be sent
    handed, handed_last      since when people have the conversation, when it was last
                             heard of since, ms
    handed_why, handed_by    why they have it; an operator's last step in this

Entries of lanes and outboxes: a turn's id, milliseconds of when it came, JSON.

A reminder in its conversation's hash, six lines: '1' when a message of the customer
drops it, when it is due in milliseconds, the id of the turn that it will be, its intent
and its entities in JSON that is the same text for the same ones, its event in JSON.
Both the hash and the zset, whose members are a conversation, a space and a name, live
for a day longer than what is in them is to wait.
"""

from __future__ import annotations

GROUP = "chorus"
TURN_LENGTH = 16
TIME_LENGTH = 13  # milliseconds since 1970, until the year 2286

_COMMON = """
local function now()
  local time = redis.call('TIME')
  return string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
local function begins_with(entry, turn)
  return entry and string.sub(entry, 1, #turn) == turn
end
local function since(entry) return string.sub(entry, 17, 29) end
-- Tokens name a conversation by its hash: a stream keeps the bytes of an entry that was
-- deleted from it, and a conversation's key says who is in it.
local function name_in(stream, name)
  return string.match(stream, '^chorus:{s%d+}') .. ':name:' .. name
end
local function add_token(stream, conversation, ttl)
  local name = redis.sha1hex(conversation)
  redis.call('SET', name_in(stream, name), conversation, 'EX', ttl)
  return redis.call('XADD', stream, '*', 'c', name)
end
local function held_by(stream, group, token, consumer)
  local held = redis.pcall('XPENDING', stream, group, token, token, 1)
  return not held.err and held[1] ~= nil and held[1][2] == consumer
end
local function letter_in(stream, turn)
  return string.match(stream, '^chorus:{s%d+}') .. ':letter:' .. turn
end
-- What another arm would have said lies beside the turn's record, and goes with it.
local function forget_record(prefix, turn)
  redis.call('DEL', prefix .. turn .. ':shadow')
  return redis.call('DEL', prefix .. turn)
end
local function judged_in(judgements, turn)
  return string.match(judgements, '^chorus:{s%d+}') .. ':judged:' .. turn
end
-- People have a conversation until nothing was heard of it for so long.
local function is_handed(meta, ms, handoff_ms)
  local last = redis.call('HGET', meta, 'handed_last')
  return last and ms - last < tonumber(handoff_ms)
end
local function hand_over(meta, handed, conversation, why, ms)
  redis.call('HSET', meta, 'handed', ms, 'handed_last', ms, 'handed_why', why)
  redis.call('ZADD', handed, ms, conversation)
end
local function take_back(meta, handed, conversation)
  redis.call('HDEL', meta, 'handed', 'handed_last', 'handed_why')
  redis.call('ZREM', handed, conversation)
end
local function give_up(stream, group, token)
  redis.call('XACK', stream, group, token)
  redis.call('XDEL', stream, token)
end
-- Lives at least so long from now on: a stream as long as what waits behind its tokens.
local function keep(key, ttl)
  if redis.call('TTL', key) < tonumber(ttl) then redis.call('EXPIRE', key, ttl) end
end
local function keep_people(people, ttl)
  ttl = string.format('%.0f', ttl)
  keep(people, ttl)
  for _, person in ipairs(redis.call('SMEMBERS', people)) do keep(person, ttl) end
end
-- Says whether there is a token. One that went away with its stream is none.
local function is_up(stream, meta, field, ttl)
  local id = redis.call('HGET', meta, field)
  if not id or #redis.call('XRANGE', stream, id, id) == 0 then return false end
  keep(stream, ttl)
  return true
end
-- The token of a lane or an outbox, and since when there is something in it.
local function put_up(stream, meta, field, conversation, ttl, zset, ms)
  local id = add_token(stream, conversation, ttl)
  keep(stream, ttl)
  redis.call('HSET', meta, field, id)
  redis.call('ZADD', zset, ms, conversation)
end
"""

# Claim the event and remember who spoke. Returns early for an event seen before; the
# token tells our own command, sent again, from a duplicate.
_CLAIM = """
local function first_time(seen, token, ttl, refused)
  local owner = redis.call('GET', seen)
  if owner == token then return 'accepted' end
  if owner then return 'duplicate' end
  if refused then return 'refused' end
  redis.call('SET', seen, token, 'EX', ttl)
  return nil
end
local function too_many(rate, limit)
  return tonumber(redis.call('GET', rate) or '0') >= tonumber(limit)
end
local function count(rate)
  if redis.call('INCR', rate) == 1 then redis.call('EXPIRE', rate, 60) end
end
-- Who spoke has to be known as long as anything is kept of it: a reminder may be kept
-- longer than the rest, and nothing here may cut that short.
local function remember(person, people, active, conversation, ttl, people_ttl, ms)
  redis.call('SADD', person, conversation)
  keep(person, people_ttl)
  redis.call('SADD', people, person)
  keep(people, people_ttl)
  redis.call('ZADD', active, ms, conversation)
  redis.call('ZREMRANGEBYSCORE', active, '-inf', ms - ttl * 1000)
end
"""

_OWE = """
local function owe(outbox, out, meta, owed, conversation, ttl, turn, ms, reply)
  redis.call('RPUSH', outbox, turn .. ms .. reply)
  redis.call('EXPIRE', outbox, ttl)
  if not is_up(out, meta, 'out_token', ttl) then
    put_up(out, meta, 'out_token', conversation, ttl, owed, ms)
  end
  redis.call('EXPIRE', meta, ttl)
end
"""

_REMINDER = """
local function reminder_of(written)
  return string.match(
    written, '^(%d)\\n(%d+)\\n(%w+)\\n([^\\n]*)\\n([^\\n]*)\\n(.*)$')
end
local function drop_reminder(hash, zset, conversation, name)
  redis.call('HDEL', hash, name)
  redis.call('ZREM', zset, conversation .. ' ' .. name)
end
"""

_DUE = """
-- Those that have come due and wait behind the head; only those that a message drops,
-- or all of them. Says whether there were any.
local function drop_due_reminders(lane, first, all)
  local dropped = false
  for _, entry in ipairs(redis.call('LRANGE', lane, first, -1)) do
    -- What people wrote cannot look like that: its quotes are written otherwise.
    if string.find(entry, '"reminder":true', 30, true) then
      local read, event = pcall(cjson.decode, string.sub(entry, 30))
      if read and event.kind == 'intent' and event.data.reminder == true
        and (all or event.data.kill_on_user_message == true) then
        redis.call('LREM', lane, 1, entry)
        dropped = true
      end
    end
  end
  return dropped
end
"""

# The entries of the stops are gone after a minute, when nobody can be waiting for one.
_STOP = """
local function announce_stop(stops, turn, why, who, ms)
  redis.call('XADD', stops, 'MINID', string.format('%.0f', ms - 60000), '*',
             't', turn, 'w', why, 'u', who)
  redis.call('EXPIRE', stops, 60)
end
"""

# KEYS seen, person, people, active, rate, lane, meta, ready, waiting, stops
# ARGV claim, seen ttl, conversation, ttl, people's ttl, limit a minute, turn, event,
#      lane limit, who interrupts the running turn or ''
ACCEPT = (
    _COMMON
    + _CLAIM
    + _STOP
    + """
local ms, ttl = now(), ARGV[4]
local refused = redis.call('LLEN', KEYS[6]) >= tonumber(ARGV[9])
  or too_many(KEYS[5], ARGV[6])
local before = first_time(KEYS[1], ARGV[1], ARGV[2], refused)
if before then return before end
count(KEYS[5])
local head = redis.call('LINDEX', KEYS[6], 0)
if head and ARGV[10] ~= '' then
  announce_stop(KEYS[10], string.sub(head, 1, 16), 'newer', ARGV[10], ms)
end
redis.call('RPUSH', KEYS[6], ARGV[7] .. ms .. ARGV[8])
redis.call('EXPIRE', KEYS[6], ttl)
if not is_up(KEYS[8], KEYS[7], 'token', ttl) then
  put_up(KEYS[8], KEYS[7], 'token', ARGV[3], ttl, KEYS[9], ms)
end
redis.call('EXPIRE', KEYS[7], ttl)
remember(KEYS[2], KEYS[3], KEYS[4], ARGV[3], ttl, ARGV[5], ms)
return 'accepted'
"""
)

# KEYS seen, person, people, active, rate, outbox, meta, out, owed
# ARGV claim, seen ttl, conversation, ttl, people's ttl, limit a minute, turn, reply,
#      'once' or '', how long people have a conversation, ms
#
# 'once': not again in a minute. Otherwise as often in it as there may be messages, and
# never while people have the conversation.
TURN_AWAY = (
    _COMMON
    + _CLAIM
    + _OWE
    + """
local before = first_time(KEYS[1], ARGV[1], ARGV[2], false)
if before then return before end
local ms, told = now(), true
if ARGV[9] ~= '' then
  told = not redis.call('SET', KEYS[5] .. ':told', '1', 'NX', 'EX', 60)
else
  told = too_many(KEYS[5], ARGV[6])
  count(KEYS[5])
end
if not told and not is_handed(KEYS[7], ms, ARGV[10]) then
  owe(KEYS[6], KEYS[8], KEYS[7], KEYS[9], ARGV[3], ARGV[4], ARGV[7], ms, ARGV[8])
end
remember(KEYS[2], KEYS[3], KEYS[4], ARGV[3], ARGV[4], ARGV[5], ms)
return 'accepted'
"""
)

# KEYS seen, person, people, active, rate, log, judged, judgements, the conversation's
#      judged turns
# ARGV claim, seen ttl, conversation, ttl, people's ttl, limit a minute, event, events
#      kept, turn or '', its place and origin of the candidate, or '' and '' when there
#      is no record, 'recorded' or '', who judges, rating, ttl of judgements, most of
#      them, the arm that answered or ''
#
# Logs the event, and keeps the last word of each person on a turn. What was judged
# before may still be judged otherwise after its record is gone.
JUDGE = (
    _COMMON
    + _CLAIM
    + """
local before = first_time(KEYS[1], ARGV[1], ARGV[2], too_many(KEYS[5], ARGV[6]))
if before then return before end
local ms, turn = now(), ARGV[9]
count(KEYS[5])
redis.call('RPUSH', KEYS[6], ARGV[7])
redis.call('LTRIM', KEYS[6], -tonumber(ARGV[8]), -1)
redis.call('EXPIRE', KEYS[6], ARGV[4])
remember(KEYS[2], KEYS[3], KEYS[4], ARGV[3], ARGV[4], ARGV[5], ms)
if ARGV[12] ~= '' then
  redis.call('HSET', KEYS[7], 'c', ARGV[3], 'n', ARGV[10], 'o', ARGV[11],
             'a', ARGV[17])
elseif turn == '' or redis.call('HGET', KEYS[7], 'c') ~= ARGV[3] then
  return 'accepted'
end
if ARGV[14] == '0' then
  redis.call('HDEL', KEYS[7], 'p:' .. ARGV[13])
else
  redis.call('HSET', KEYS[7], 'p:' .. ARGV[13], ARGV[14])
end
-- c, n, o, and a since there are experiments: nobody judges it any more
if redis.call('HLEN', KEYS[7]) == 3 + redis.call('HEXISTS', KEYS[7], 'a') then
  redis.call('DEL', KEYS[7])
  redis.call('ZREM', KEYS[8], turn)
  redis.call('ZREM', KEYS[9], turn)
  return 'accepted'
end
local oldest = string.format('%.0f', ms - ARGV[15] * 1000)
for _, key in ipairs({KEYS[8], KEYS[9]}) do
  redis.call('ZADD', key, ms, turn)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', oldest)
end
for _, key in ipairs({KEYS[7], KEYS[8], KEYS[9]}) do
  redis.call('EXPIRE', key, ARGV[15])
end
local surplus = redis.call('ZCARD', KEYS[8]) - ARGV[16]
if surplus > 0 then
  local popped = redis.call('ZPOPMIN', KEYS[8], surplus)
  for i = 1, #popped, 2 do redis.call('DEL', judged_in(KEYS[8], popped[i])) end
end
return 'accepted'
"""
)

# KEYS seen, lane, meta, stops; ARGV claim, seen ttl
STOP = (
    _COMMON
    + _CLAIM
    + _STOP
    + """
local before = first_time(KEYS[1], ARGV[1], ARGV[2], false)
if before then return before end
local head = redis.call('LINDEX', KEYS[2], 0)
if head then
  local turn = string.sub(head, 1, 16)
  redis.call('HSET', KEYS[3], 'stop', turn)
  announce_stop(KEYS[4], turn, 'stopped', '', now())
end
return 'accepted'
"""
)

# KEYS stream; ARGV group, consumer, tokens…
#
# Returns the tokens that another one holds by now, and those that do not exist any
# more, because another one has finished there or the conversation was erased.
RENEW = (
    _COMMON
    + """
local lost, gone = {}, {}
for i = 3, #ARGV do
  local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
  if held.err or held[1] == nil then
    gone[#gone + 1] = ARGV[i]
  elseif held[1][2] ~= ARGV[2] then
    lost[#lost + 1] = ARGV[i]
  else
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
return {lost, gone}
"""
)

# KEYS ready, meta, lane, waiting, log, slots
# ARGV group, consumer, token, lease, conversation, messages, window
#
# 'lost': another one holds the token. 'empty': the conversation was erased meanwhile.
# 'orphaned': whoever had begun before has not said what became of it. That may be the
# message's fault or another one's, so it is counted by COUNT, when it is really tried.
BEGIN = (
    _COMMON
    + """
if not held_by(KEYS[1], ARGV[1], ARGV[3], ARGV[2]) then return {'lost'} end
local messages = redis.call('LRANGE', KEYS[3], 0, ARGV[6] - 1)
local token = redis.call('HGET', KEYS[2], 'token')
if #messages == 0 or token ~= ARGV[3] then
  give_up(KEYS[1], ARGV[1], ARGV[3])
  if not token or token == ARGV[3] then
    redis.call('HDEL', KEYS[2], 'token', 'lease', 'attempts', 'stop', 'orphaned',
               'acting')
    redis.call('ZREM', KEYS[4], ARGV[5])
  end
  return {'empty'}
end
local before = redis.call('HGET', KEYS[2], 'lease')
if not before then
  redis.call('HINCRBY', KEYS[2], 'attempts', 1)
  redis.call('HDEL', KEYS[2], 'orphaned')
elseif before ~= ARGV[4] then
  redis.call('HSET', KEYS[2], 'orphaned', '1')
end
redis.call('HSET', KEYS[2], 'lease', ARGV[4])
local events, window = {}, tonumber(ARGV[7])
if window > 0 then events = redis.call('LRANGE', KEYS[5], -window, -1) end
local found = redis.call('HMGET', KEYS[2], 'attempts', 'stop', 'orphaned', 'acting')
return {'begun', found[1], found[2], found[3], now(), messages, events,
        redis.call('HGETALL', KEYS[6]), redis.call('HMGET', KEYS[2], 'handed',
        'handed_last', 'handed_why'), found[4]}
"""
)

# KEYS meta, outbox; ARGV lease, channel, turn, text
#
# Tells whoever shows it what is written so far. Not after the commit, which takes the
# lease away, and not while an earlier reply is on its way: a frame can neither come
# after its own reply nor before the one ahead of it. Sent twice, it says it twice.
FRAME = (
    _COMMON
    + """
if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[1]
  or redis.call('LLEN', KEYS[2]) > 0 then return 0 end
redis.call('PUBLISH', ARGV[2], ARGV[3] .. now() .. ARGV[4])
return 1
"""
)

# KEYS meta; ARGV lease
#
# Counts an attempt at what was begun as an orphan.
COUNT = """
local found = redis.call('HMGET', KEYS[1], 'lease', 'orphaned')
if found[1] ~= ARGV[1] or found[2] == ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'orphaned', ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'attempts', 1)
"""

# KEYS meta; ARGV lease, turn
#
# From now on the turn may have done something outside that must not be done twice.
ACTING = """
if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'acting', ARGV[2])
return 1
"""

_REMINDERS = (
    _REMINDER
    + """
-- Neither an intent nor entities have a line break.
local function filter(name, intent, entities)
  return intent .. '\\n' .. entities .. '\\n' .. name
end
local function is_cancelled(filters, name, intent, entities)
  for _, a in ipairs({name, ''}) do
    for _, b in ipairs({intent, ''}) do
      for _, c in ipairs({entities, ''}) do
        if filters[filter(a, b, c)] then return true end
      end
    end
  end
  return false
end
local function drop_reminders(hash, zset, conversation, wrote, first, last)
  local filters = {}
  for i = first, last, 3 do
    filters[filter(ARGV[i], ARGV[i + 1], ARGV[i + 2])] = true
  end
  local there = redis.call('HGETALL', hash)
  for i = 1, #there, 2 do
    local kill, _, _, intent, entities = reminder_of(there[i + 1])
    if (wrote and kill == '1') or is_cancelled(filters, there[i], intent, entities) then
      drop_reminder(hash, zset, conversation, there[i])
    end
  end
end
-- Returns how many were too many: the latest ones go.
local function drop_latest(hash, zset, conversation, most)
  local surplus = redis.call('HLEN', hash) - most
  if surplus <= 0 then return 0 end
  local there, rows = redis.call('HGETALL', hash), {}
  for i = 1, #there, 2 do
    local _, due = reminder_of(there[i + 1])
    rows[#rows + 1] = {tonumber(due), there[i]}
  end
  table.sort(rows, function(one, other)
    if one[1] ~= other[1] then return one[1] > other[1] end
    return one[2] > other[2]
  end)
  for i = 1, surplus do drop_reminder(hash, zset, conversation, rows[i][2]) end
  return surplus
end
local function set_reminders(hash, zset, conversation, ttl, ms, first, last)
  for i = first, last, 3 do
    redis.call('HSET', hash, ARGV[i], ARGV[i + 2])
    redis.call('ZADD', zset, ARGV[i + 1], conversation .. ' ' .. ARGV[i])
    ttl = math.max(ttl, math.ceil((ARGV[i + 1] - ms) / 1000) + 86400)
  end
  ttl = string.format('%.0f', ttl)
  keep(hash, ttl)
  keep(zset, ttl)
end
"""
)

# KEYS ready, meta, lane, waiting, outbox, out, owed, log, slots, turns, people, active,
#      record, dead, letters, handed, the conversation's reminders, reminders
# ARGV group, token, lease, conversation, turn, messages answered, ttl, events kept,
#      record's key prefix, record or '', record's ttl, reply or '', why the message
#      is set aside or '', since when people had the conversation or '' (or 'any'), who
#      has it from now on ('people', 'still people', 'bot' or ''), why, 'wrote' or '',
#      most reminders, numbers of cancels, reminders and events; for each cancel name,
#      intent and entities, each or ''; for each reminder name, when it is due, and as
#      it is kept; events…, slot name, value or '', …
#
# 'lost': another one has begun meanwhile. 'gone': the conversation was erased while
# the turn ran. 'changed': it was handed over or given back meanwhile. Nothing of the
# turn is kept in these cases. 'committed' may be followed by a number: so many
# reminders were too many.
COMMIT = (
    _COMMON
    + _OWE
    + """
local turn, ttl, kept = ARGV[5], ARGV[7], tonumber(ARGV[8])
local meta = redis.call('HMGET', KEYS[2], 'lease', 'turn', 'committed', 'attempts')
if meta[2] == turn and meta[3] == ARGV[3] then return 'already' end
if redis.call('EXISTS', KEYS[2]) == 0 then return 'gone' end
if meta[1] ~= ARGV[3] then return 'lost' end
local head = redis.call('LINDEX', KEYS[3], 0)
if not begins_with(head, turn) then return 'gone' end
local handed = redis.call('HGET', KEYS[2], 'handed') or ''
if ARGV[14] ~= 'any' and ARGV[14] ~= handed then return 'changed' end
local ms = now()
redis.call('HSET', KEYS[2], 'turn', turn, 'committed', ARGV[3])
if ARGV[12] ~= '' then
  owe(KEYS[5], KEYS[6], KEYS[2], KEYS[7], ARGV[4], ttl, turn, ms, ARGV[12])
end
if ARGV[13] ~= '' then
  -- The stream has ids only: it would keep the bytes of what is deleted from it.
  local oldest = string.format('%.0f', ms - ttl * 1000)
  for _, entry in ipairs(redis.call('LRANGE', KEYS[3], 0, ARGV[6] - 1)) do
    local name = string.sub(entry, 1, 16)
    local id = redis.call('XADD', KEYS[14], 'MINID', oldest, '*', 't', name)
    local letter = letter_in(KEYS[14], name)
    redis.call('HSET', letter, 'id', id, 'c', ARGV[4], 'a', meta[4] or '0',
               'w', ARGV[13], 'm', entry)
    redis.call('EXPIRE', letter, ttl)
    redis.call('SADD', KEYS[15], name)
  end
  redis.call('EXPIRE', KEYS[14], ttl)
  redis.call('EXPIRE', KEYS[15], ttl)
end
if ARGV[15] == 'people' then
  hand_over(KEYS[2], KEYS[16], ARGV[4], ARGV[16], ms)
elseif ARGV[15] == 'still people' then
  redis.call('HSET', KEYS[2], 'handed_last', ms)
elseif ARGV[15] == 'bot' then
  take_back(KEYS[2], KEYS[16], ARGV[4])
end
local wrote = ARGV[17] ~= ''
local cancels = 21
local reminders = cancels + 3 * ARGV[19]
local events = reminders + 3 * ARGV[20]
local slots = events + ARGV[21]
for i = events + 1, slots do redis.call('RPUSH', KEYS[8], ARGV[i]) end
redis.call('LTRIM', KEYS[8], -kept, -1)
for i = slots + 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[9], ARGV[i])
  else redis.call('HSET', KEYS[9], ARGV[i], ARGV[i + 1]) end
end
local surplus, reminded = 0, redis.call('TTL', KEYS[17])
if reminded ~= -2 or reminders < events then
  -- Not before they are wanted: a function costs each run of the script that makes it.
"""
    + _REMINDERS
    + """
  -- What is cancelled goes first, what is new comes last: so a turn may set again what
  -- it has cancelled, and its own message does not drop it.
  if wrote or cancels < reminders then
    drop_reminders(KEYS[17], KEYS[18], ARGV[4], wrote, cancels + 1, reminders)
  end
  if reminders < events then
    set_reminders(KEYS[17], KEYS[18], ARGV[4], tonumber(ttl), ms, reminders + 1, events)
    surplus = drop_latest(KEYS[17], KEYS[18], ARGV[4], tonumber(ARGV[18]))
  end
  reminded = redis.call('TTL', KEYS[17])
end
if ARGV[10] ~= '' then
  redis.call('SET', KEYS[13], ARGV[10], 'EX', ARGV[11])
  redis.call('HSET', KEYS[2], 'explained', turn)
  redis.call('RPUSH', KEYS[10], turn)
  -- A record that nothing points at could not be erased with its conversation.
  while redis.call('LLEN', KEYS[10]) > kept do
    forget_record(ARGV[9], redis.call('LPOP', KEYS[10]))
  end
end
for _, key in ipairs({KEYS[2], KEYS[8], KEYS[9]}) do
  redis.call('EXPIRE', key, ttl)
end
-- The pointers to the records live as long as the longer-lived of the two, and so does
-- what is known of who spoke. There may be thousands: once an hour will do, but where a
-- reminder outlives both.
local longer = math.max(tonumber(ttl), tonumber(ARGV[11]))
redis.call('EXPIRE', KEYS[10], longer)
if reminded > longer
  or ms - (redis.call('HGET', KEYS[2], 'people_at') or 0) > 3600000 then
  redis.call('HSET', KEYS[2], 'people_at', ms)
  keep_people(KEYS[11], math.max(longer, reminded))
end
redis.call('ZADD', KEYS[12], ms, ARGV[4])
for _ = 1, tonumber(ARGV[6]) do redis.call('LPOP', KEYS[3]) end
give_up(KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], 'token', 'lease', 'attempts', 'stop', 'orphaned', 'acting')
local following = redis.call('LINDEX', KEYS[3], 0)
if following and wrote then
"""
    + _DUE
    + """
  if drop_due_reminders(KEYS[3], 0, false) then
    following = redis.call('LINDEX', KEYS[3], 0)
  end
end
if following then
  put_up(KEYS[1], KEYS[2], 'token', ARGV[4], ttl, KEYS[4], since(following))
else
  redis.call('ZREM', KEYS[4], ARGV[4])
end
if surplus > 0 then return 'committed ' .. surplus end
return 'committed'
"""
)

# KEYS stream, meta; ARGV group, consumer, token, lease, conversation, name of the
#      token's field, of the lease's, 'again' or '', ttl
#
# Lets the next one begin at once. Without 'again' it does not count as an attempt.
HAND_BACK = (
    _COMMON
    + """
if redis.call('HGET', KEYS[2], ARGV[6]) ~= ARGV[3]
  or not held_by(KEYS[1], ARGV[1], ARGV[3], ARGV[2]) then return 0 end
if redis.call('HGET', KEYS[2], ARGV[7]) == ARGV[4] then
  redis.call('HDEL', KEYS[2], ARGV[7])
  -- An orphan that still waits to be tried is not counted yet.
  local counted = redis.call('HGET', KEYS[2], 'orphaned') ~= '1'
  if ARGV[7] == 'lease' and ARGV[8] == '' and counted then
    redis.call('HINCRBY', KEYS[2], 'attempts', -1)
  end
end
give_up(KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[6], add_token(KEYS[1], ARGV[5], ARGV[9]))
return 1
"""
)

_OUTBOX = """
local function outgoing(head, since_when, sending, tries)
  local doubtful = sending and begins_with(head, sending) and '1' or '0'
  return {'open', head, doubtful, tries or '0', since_when}
end
local function close(out, group, meta, owed, conversation, token)
  give_up(out, group, token)
  redis.call('HDEL', meta, 'out_token', 'out_lease', 'sending', 'tries')
  redis.call('ZREM', owed, conversation)
  return {'empty'}
end
"""

# KEYS out, meta, outbox, owed; ARGV group, consumer, token, lease, conversation
#
# Returns the head, whether somebody was sending it who has not said what became of it,
# how often it could not be sent, and how long ago it was committed, in milliseconds.
OPEN = (
    _COMMON
    + _OUTBOX
    + """
if not held_by(KEYS[1], ARGV[1], ARGV[3], ARGV[2]) then return {'lost'} end
local found = redis.call('HMGET', KEYS[2], 'out_token', 'sending', 'tries')
if found[1] ~= ARGV[3] then
  give_up(KEYS[1], ARGV[1], ARGV[3])
  return {'lost'}
end
local head = redis.call('LINDEX', KEYS[3], 0)
if not head then
  return close(KEYS[1], ARGV[1], KEYS[2], KEYS[4], ARGV[5], ARGV[3])
end
redis.call('HSET', KEYS[2], 'out_lease', ARGV[4])
return outgoing(head, now() - since(head), found[2], found[3])
"""
)

# KEYS out, meta; ARGV group, consumer, token, lease, turn
#
# The last thing before a reply is sent. Renews the token as well: what is marked is not
# taken over before it can have been sent.
MARK = (
    _COMMON
    + """
if redis.call('HGET', KEYS[2], 'out_lease') ~= ARGV[4]
  or not held_by(KEYS[1], ARGV[1], ARGV[3], ARGV[2]) then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
redis.call('HSET', KEYS[2], 'sending', ARGV[5])
return 1
"""
)

# KEYS out, meta, outbox, owed, record
# ARGV group, token, lease, conversation, turn, the record as it is now or ''
#
# Takes the reply out and returns the next one, if there is any.
SENT = (
    _COMMON
    + _OUTBOX
    + """
local found = redis.call('HMGET', KEYS[2], 'out_token', 'out_lease')
if not found[1] then return {'empty'} end
if found[2] ~= ARGV[3] then return {'lost'} end
if begins_with(redis.call('LINDEX', KEYS[3], 0), ARGV[5]) then
  redis.call('LPOP', KEYS[3])
  if redis.call('HGET', KEYS[2], 'sending') == ARGV[5] then
    redis.call('HDEL', KEYS[2], 'sending')
  end
  redis.call('HDEL', KEYS[2], 'tries')
  if ARGV[6] ~= '' then redis.call('SET', KEYS[5], ARGV[6], 'XX', 'KEEPTTL') end
end
local head = redis.call('LINDEX', KEYS[3], 0)
if not head then
  return close(KEYS[1], ARGV[1], KEYS[2], KEYS[4], ARGV[4], ARGV[2])
end
redis.call('ZADD', KEYS[4], since(head), ARGV[4])
found = redis.call('HMGET', KEYS[2], 'sending', 'tries')
return outgoing(head, now() - since(head), found[1], found[2])
"""
)

# KEYS meta; ARGV lease, how often it could not be sent by now
#
# The reply did not arrive, and is not being sent until it is marked again.
LATER = """
if redis.call('HGET', KEYS[1], 'out_lease') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'sending')
redis.call('HSET', KEYS[1], 'tries', ARGV[2])
return 1
"""

# KEYS lane, outbox, log, slots, meta, turns, people, ready, out, waiting, owed, active,
#      dead, letters, the conversation's judged turns, judgements, handed, the
#      conversation's reminders, reminders
# ARGV group, conversation, record's key prefix, rate's key prefix, person's key
#      prefix, 'all', 'keep lane' or 'lane only'
#
# 'lane only' drops what nobody is going to answer or to read, and nothing else.
# A customer who asks to be forgotten is still being answered, and may have written
# more since: lane and outbox stay then, and with them who is in it. What was to remind
# of what is forgotten does not.
ERASE = (
    _COMMON
    + _REMINDER
    + _DUE
    + """
local messages = redis.call('LLEN', KEYS[1])
local replies = redis.call('LLEN', KEYS[2])
local events = redis.call('LLEN', KEYS[3])
local slots = redis.call('HLEN', KEYS[4])
local records = 0
if ARGV[6] ~= 'lane only' then
  for _, turn in ipairs(redis.call('LRANGE', KEYS[6], 0, -1)) do
    records = records + forget_record(ARGV[3], turn)
  end
  for _, turn in ipairs(redis.call('ZRANGE', KEYS[15], 0, -1)) do
    redis.call('DEL', judged_in(KEYS[16], turn))
    redis.call('ZREM', KEYS[16], turn)
  end
  for _, name in ipairs(redis.call('HKEYS', KEYS[18])) do
    drop_reminder(KEYS[18], KEYS[19], ARGV[2], name)
  end
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[6], KEYS[15])
end
take_back(KEYS[5], KEYS[17], ARGV[2])
redis.call('HDEL', KEYS[5], 'handed_by')
for _, turn in ipairs(redis.call('SMEMBERS', KEYS[14])) do
  local letter = letter_in(KEYS[13], turn)
  local id = redis.call('HGET', letter, 'id')
  if id then redis.call('XDEL', KEYS[13], id) end
  messages = messages + redis.call('DEL', letter)
end
redis.call('DEL', KEYS[14])
if ARGV[6] == 'keep lane' then
  drop_due_reminders(KEYS[1], 1, true)
  redis.call('HDEL', KEYS[5], 'turn', 'committed', 'explained')
  return {0, 0, events, slots, records}
end
local tokens = redis.call('HMGET', KEYS[5], 'token', 'out_token')
redis.call('DEL', name_in(KEYS[8], redis.sha1hex(ARGV[2])))
if tokens[1] then give_up(KEYS[8], ARGV[1], tokens[1]) end
if tokens[2] then give_up(KEYS[9], ARGV[1], tokens[2]) end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[5])
redis.call('ZREM', KEYS[10], ARGV[2])
redis.call('ZREM', KEYS[11], ARGV[2])
if ARGV[6] == 'lane only' then return {messages, replies, 0, 0, 0} end
for _, person in ipairs(redis.call('SMEMBERS', KEYS[7])) do
  redis.call('SREM', person, ARGV[2])
  local rate = ARGV[4] .. string.sub(person, #ARGV[5] + 1)
  redis.call('DEL', rate, rate .. ':told')
end
redis.call('DEL', KEYS[7])
redis.call('ZREM', KEYS[12], ARGV[2])
return {messages, replies, events, slots, records}
"""
)

# KEYS waiting, active, then for each platform its reminders and its stream of ready
#      lanes
# ARGV the prefix of conversations' keys, ttl, people's ttl, lane limit, most at once,
#      how long what finds a full lane waits, ms
#
# Moves what is due into its lane, the earliest first. Sent twice, it moves what else is
# due. Returns now, and when the next one is due, or '' when there is none.
FIRE = (
    _COMMON
    + _REMINDER
    + """
local function fire(reminders, ready, member, ms)
  local conversation, name = string.match(member, '^(%S+) (.*)$')
  local of = ARGV[1] .. conversation
  local hash, lane, meta = of .. ':reminders', of .. ':lane', of .. ':meta'
  local written = redis.call('HGET', hash, name)
  if not written then
    -- It expired, because nobody was there for a day to fire it.
    redis.call('ZREM', reminders, member)
    return
  end
  if redis.call('LLEN', lane) >= tonumber(ARGV[4]) then
    redis.call('ZADD', reminders, ms + ARGV[6], member)
    return
  end
  local _, _, turn, _, _, event = reminder_of(written)
  redis.call('RPUSH', lane, turn .. ms .. event)
  redis.call('EXPIRE', lane, ARGV[2])
  drop_reminder(hash, reminders, conversation, name)
  if not is_up(ready, meta, 'token', ARGV[2]) then
    put_up(ready, meta, 'token', conversation, ARGV[2], KEYS[1], ms)
  end
  redis.call('EXPIRE', meta, ARGV[2])
  redis.call('ZADD', KEYS[2], ms, conversation)
  keep_people(of .. ':people', ARGV[3])
end
local ms, room, following = now(), tonumber(ARGV[5]), nil
for i = 3, #KEYS, 2 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', ms, 'LIMIT', 0, room)
  for _, member in ipairs(due) do fire(KEYS[i], KEYS[i + 1], member, ms) end
  room = room - #due
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2]
  if first and (not following or tonumber(first) < following) then
    following = tonumber(first)
  end
end
return {ms, following and string.format('%.0f', following) or ''}
"""
)

# KEYS meta, handed, outbox, out, owed
# ARGV step, conversation, 'people' or 'bot', why, how long people have a conversation,
#      ms, ttl, turn, reply
#
# An operator's hand-over, or the end of one, and what the customer is told of it. The
# step tells our own command, sent again, from another one's.
HAND_OVER = (
    _COMMON
    + _OWE
    + """
if redis.call('HGET', KEYS[1], 'handed_by') == ARGV[1] then return 'done' end
local ms = now()
if ARGV[3] == 'people' then
  if is_handed(KEYS[1], ms, ARGV[5]) then return 'already' end
  hand_over(KEYS[1], KEYS[2], ARGV[2], ARGV[4], ms)
else
  if redis.call('HEXISTS', KEYS[1], 'handed') == 0 then return 'already' end
  take_back(KEYS[1], KEYS[2], ARGV[2])
end
redis.call('HSET', KEYS[1], 'handed_by', ARGV[1])
owe(KEYS[3], KEYS[4], KEYS[1], KEYS[5], ARGV[2], ARGV[6], ARGV[7], ms, ARGV[8])
return 'done'
"""
)

# KEYS judgements; ARGV milliseconds, prefix of the records' keys
#
# Returns what was judged since then, the latest first: turn, when, whether there is a
# record of it, and its hash of judgements.
JUDGED = (
    _COMMON
    + """
local rows = {}
local found = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', ARGV[1], 'WITHSCORES')
for i = 1, #found, 2 do
  rows[#rows + 1] = {
    found[i], string.format('%.0f', found[i + 1]),
    redis.call('EXISTS', ARGV[2] .. found[i]),
    redis.call('HGETALL', judged_in(KEYS[1], found[i])),
  }
end
return rows
"""
)

# KEYS record, shadow; ARGV what another arm would have said
#
# Kept as long as the record beside it, and not at all where that is gone: the person
# may have been forgotten while it was computed.
SHADOW = """
local ms = redis.call('PTTL', KEYS[1])
if ms <= 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ms)
return 1
"""

# KEYS waiting, owed; ARGV the prefix of conversations' keys, most of each
#
# Returns now, then for each conversation: its key, length of lane, since when, length
# of outbox, since when.
BACKLOG = (
    _COMMON
    + """
local found = {}
for i, part in ipairs({':lane', ':outbox'}) do
  local members = redis.call('ZRANGE', KEYS[i], 0, ARGV[2] - 1, 'WITHSCORES')
  for j = 1, #members, 2 do
    local length = redis.call('LLEN', ARGV[1] .. members[j] .. part)
    if length == 0 then
      -- It expired with everything else of its conversation.
      redis.call('ZREM', KEYS[i], members[j])
    else
      local row = found[members[j]] or {0, '0', 0, '0'}
      row[2 * i - 1] = length
      row[2 * i] = string.format('%.0f', members[j + 1])
      found[members[j]] = row
    end
  end
end
local rows = {}
for conversation, row in pairs(found) do
  rows[#rows + 1] = {conversation, row[1], row[2], row[3], row[4]}
end
return {now(), rows}
"""
)

# KEYS dead, letter, letters, lane, meta, ready, waiting, active
# ARGV turn, conversation, ttl, the turn that will answer it
#
# The message is put at the end of its lane, as if it had come just now.
RETRY = (
    _COMMON
    + """
local letter = redis.call('HMGET', KEYS[2], 'id', 'm')
if not letter[1] then return 0 end
local ms = now()
redis.call('RPUSH', KEYS[4], ARGV[4] .. ms .. string.sub(letter[2], 30))
redis.call('EXPIRE', KEYS[4], ARGV[3])
if not is_up(KEYS[6], KEYS[5], 'token', ARGV[3]) then
  put_up(KEYS[6], KEYS[5], 'token', ARGV[2], ARGV[3], KEYS[7], ms)
end
redis.call('EXPIRE', KEYS[5], ARGV[3])
redis.call('ZADD', KEYS[8], ms, ARGV[2])
redis.call('XDEL', KEYS[1], letter[1])
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
"""
)

# KEYS stream; ARGV group, consumer
#
# A consumer is removed only when nothing is left in its name: removing it would lose
# the tokens that it holds.
LEAVE = """
local known = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if known.err then return 0 end
for _, consumer in ipairs(known) do
  local row = {}
  for i = 1, #consumer, 2 do row[consumer[i]] = consumer[i + 1] end
  local stale = row['idle'] > 3600000 or row['name'] == ARGV[2]
  if stale and row['pending'] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], row['name'])
  end
end
return 1
"""

# KEYS ready, out
#
# Removes the streams of a platform that nobody will use again, if they are empty.
RETIRE = """
for _, key in ipairs(KEYS) do
  if redis.call('XLEN', key) == 0 then redis.call('DEL', key) end
end
return 1
"""
