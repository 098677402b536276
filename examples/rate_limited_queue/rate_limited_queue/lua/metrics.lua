-- ARGV: queue id, or '' for the type. Answers {the first of the last ten minutes (ms), ten
-- enqueue counts, ten dequeue counts, waiting jobs of the queue id, ready queue ids, queue ids
-- whose release is due, active jobs, dead jobs, flat totals, interval of the queue id}.
local id = ARGV[1]
local suffix = id == '' and '' or ':' .. id
local minute = now - now % 60000000
local enqueued, dequeued = {}, {}
for back = 9, 0, -1 do
  local found = redis.call(
    'HMGET', base .. 'm:' .. text(minute - back * 60000000), 'e' .. suffix, 'd' .. suffix)
  enqueued[10 - back], dequeued[10 - back] = tonumber(found[1] or 0), tonumber(found[2] or 0)
end
return {
  text((minute - 9 * 60000000) / 1000), enqueued, dequeued,
  id == '' and 0 or redis.call('ZCARD', base .. 'q:' .. id),
  redis.call('ZCARD', base .. 'r'),
  redis.call('ZCOUNT', base .. 'r', '-inf', text(now)),
  redis.call('ZCARD', base .. 'a'), redis.call('ZCARD', base .. 'd'),
  redis.call('HGETALL', base .. 'n'),
  id == '' and '' or redis.call('HGET', base .. 's:' .. id, 'i') or '',
}
