-- ARGV: queue id. Removes every key of a queue id at once. Answers {1 or 0 if it had no jobs,
-- the key to which its jobs were moved, for sweep.lua}.
local id, jobs = ARGV[1], base .. 'j:' .. ARGV[1]
local trash = base .. 'x:' .. id .. ':' .. text(now)
local waiting = redis.call('ZCARD', base .. 'q:' .. id)
local found = redis.call('EXISTS', jobs)
if found == 1 then
  redis.call('RENAME', jobs, trash)
  redis.call('EXPIRE', trash, 3600)
end
redis.call('UNLINK', base .. 'q:' .. id, base .. 'p:' .. id, base .. 's:' .. id)
redis.call('ZREM', base .. 'r', id)
if waiting > 0 then redis.call('HINCRBY', base .. 'n', 'w', -waiting) end
return {found, trash}
