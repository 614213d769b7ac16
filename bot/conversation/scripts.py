"""
What Redis does in one step: the Lua scripts, in the 6.2 subset.

Knows keys only by the names it is given. Every script may be sent twice, because the
client sends a command again when its answer was lost: the second run finds what the
first one left (the claim's token, the turn's id) and changes nothing. All keys of a
script, those it makes up from names in other keys included, carry one hash tag.

Entries of lanes and outboxes are a turn id followed by JSON.
"""

from __future__ import annotations

# Claim the event and remember who spoke. Returns early for an event seen before; the
# token tells our own command, sent again, from a duplicate.
_CLAIM = """
local function first_time(seen, token, ttl, full)
  local owner = redis.call('GET', seen)
  if owner == token then return 'accepted' end
  if owner then return 'duplicate' end
  if full then return 'refused' end
  redis.call('SET', seen, token, 'EX', ttl)
  return nil
end
local function remember(person, people, conversation, ttl)
  redis.call('SADD', person, conversation)
  redis.call('EXPIRE', person, ttl)
  redis.call('SADD', people, person)
  redis.call('EXPIRE', people, ttl)
end
"""

_BEGINS_WITH = """
local function begins_with(entry, turn)
  return entry and string.sub(entry, 1, #turn) == turn
end
"""

# KEYS seen, person, people, lane, busy; ARGV token, seen ttl, conversation, ttl,
# entry, limit
ACCEPT = (
    _CLAIM
    + """
local full = redis.call('LLEN', KEYS[4]) >= tonumber(ARGV[6])
local before = first_time(KEYS[1], ARGV[1], ARGV[2], full)
if before then return before end
redis.call('RPUSH', KEYS[4], ARGV[5])
redis.call('EXPIRE', KEYS[4], ARGV[4])
redis.call('SADD', KEYS[5], ARGV[3])
remember(KEYS[2], KEYS[3], ARGV[3], ARGV[4])
return 'accepted'
"""
)

# KEYS seen, person, people, outbox, busy; ARGV token, seen ttl, conversation, ttl,
# entry
TURN_AWAY = (
    _CLAIM
    + """
local before = first_time(KEYS[1], ARGV[1], ARGV[2], false)
if before then return before end
redis.call('RPUSH', KEYS[4], ARGV[5])
redis.call('EXPIRE', KEYS[4], ARGV[4])
redis.call('SADD', KEYS[5], ARGV[3])
remember(KEYS[2], KEYS[3], ARGV[3], ARGV[4])
return 'accepted'
"""
)

# KEYS seen, person, people, log; ARGV token, seen ttl, conversation, ttl, event,
# events kept
NOTE = (
    _CLAIM
    + """
local before = first_time(KEYS[1], ARGV[1], ARGV[2], false)
if before then return before end
redis.call('RPUSH', KEYS[4], ARGV[5])
redis.call('LTRIM', KEYS[4], -tonumber(ARGV[6]), -1)
redis.call('EXPIRE', KEYS[4], ARGV[4])
remember(KEYS[2], KEYS[3], ARGV[3], ARGV[4])
return 'accepted'
"""
)

# KEYS seen; ARGV token, seen ttl
CLAIM = (
    _CLAIM
    + """
return first_time(KEYS[1], ARGV[1], ARGV[2], false) or 'accepted'
"""
)

# KEYS lane, outbox, busy; ARGV conversation
NEXT = """
local replies = redis.call('LRANGE', KEYS[2], 0, -1)
local head = redis.call('LINDEX', KEYS[1], 0)
if #replies == 0 and not head then redis.call('SREM', KEYS[3], ARGV[1]) end
return {replies, head}
"""

# KEYS log, slots; ARGV window
LOAD = """
local events = {}
local window = tonumber(ARGV[1])
if window > 0 then events = redis.call('LRANGE', KEYS[1], -window, -1) end
return {events, redis.call('HGETALL', KEYS[2])}
"""

# KEYS lane, outbox, log, slots, meta, turns, people
# ARGV turn, ttl, events kept, record's key prefix, record or '', record's ttl,
#      outbox entry or '', number of events, events…, slot name, value or '', …
#
# 'gone': the message is no longer at the head of its lane, because the conversation
# was erased while the turn ran. Nothing of the turn is kept then.
COMMIT = (
    _BEGINS_WITH
    + """
local turn = ARGV[1]
if not begins_with(redis.call('LINDEX', KEYS[1], 0), turn) then
  if redis.call('HGET', KEYS[5], 'turn') == turn then return 'already' end
  return 'gone'
end
redis.call('HSET', KEYS[5], 'turn', turn)
if ARGV[7] ~= '' then
  redis.call('RPUSH', KEYS[2], ARGV[7])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
local events = tonumber(ARGV[8])
for i = 9, 8 + events do redis.call('RPUSH', KEYS[3], ARGV[i]) end
redis.call('LTRIM', KEYS[3], -tonumber(ARGV[3]), -1)
for i = 9 + events, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[4], ARGV[i])
  else redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
end
if ARGV[5] ~= '' then
  redis.call('SET', ARGV[4] .. turn, ARGV[5], 'EX', ARGV[6])
  redis.call('HSET', KEYS[5], 'explained', turn)
  redis.call('RPUSH', KEYS[6], turn)
  -- A record that nothing points at could not be erased with its conversation.
  while redis.call('LLEN', KEYS[6]) > tonumber(ARGV[3]) do
    redis.call('DEL', ARGV[4] .. redis.call('LPOP', KEYS[6]))
  end
end
for i = 3, 5 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
-- The pointers to the records live as long as the longer-lived of the two.
redis.call('EXPIRE', KEYS[6], math.max(tonumber(ARGV[2]), tonumber(ARGV[6])))
for _, person in ipairs(redis.call('SMEMBERS', KEYS[7])) do
  redis.call('EXPIRE', person, ARGV[2])
end
redis.call('EXPIRE', KEYS[7], ARGV[2])
redis.call('LPOP', KEYS[1])
return 'committed'
"""
)

# KEYS outbox, record; ARGV turn, the record as it is now or ''
DELIVERED = (
    _BEGINS_WITH
    + """
if not begins_with(redis.call('LINDEX', KEYS[1], 0), ARGV[1]) then return 0 end
redis.call('LPOP', KEYS[1])
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2], 'XX', 'KEEPTTL') end
return 1
"""
)

# KEYS lane, outbox, log, slots, meta, turns, people, busy
# ARGV conversation, record's key prefix, 'all' or 'keep lane'
#
# A customer who asks to be forgotten is still being answered, and may have written
# more since: the lane stays then, and with it who is in it.
ERASE = """
local messages = redis.call('LLEN', KEYS[1])
local replies = redis.call('LLEN', KEYS[2])
local events = redis.call('LLEN', KEYS[3])
local slots = redis.call('HLEN', KEYS[4])
local records = 0
for _, turn in ipairs(redis.call('LRANGE', KEYS[6], 0, -1)) do
  records = records + redis.call('DEL', ARGV[2] .. turn)
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
if ARGV[3] == 'keep lane' then return {0, replies, events, slots, records} end
for _, person in ipairs(redis.call('SMEMBERS', KEYS[7])) do
  redis.call('SREM', person, ARGV[1])
end
redis.call('DEL', KEYS[1], KEYS[7])
redis.call('SREM', KEYS[8], ARGV[1])
return {messages, replies, events, slots, records}
"""
