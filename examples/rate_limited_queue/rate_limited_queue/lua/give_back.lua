-- ARGV: queue id, job id, token. Puts a delivery that nobody has seen back, at no cost of a
-- requeue; the release stays counted. Answers 1, or 0: not the current lease.
local id, job = ARGV[1], ARGV[2]
local place, remaining, token = record(id, job)
if not place or token == '' or token ~= ARGV[3] then return 0 end
redis.call('ZREM', base .. 'a', lease(id, job, token))
end_hold(id, token)
put_back(id, job, place, remaining)
return 1
