-- ARGV: queue id, job id, token, payload
-- Puts a delivery whose work may not begin yet back in its place, as it is now, at no cost of a
-- requeue. Its release was none, if it was the last. Answers 1, or 0: not the current lease.
local id, job = ARGV[1], ARGV[2]
local place, remaining, token = record(id, job)
if not place or token == '' or token ~= ARGV[3] then return 0 end
send_back(id, job, place, remaining, token, ARGV[4])
return 1
