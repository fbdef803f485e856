-- Sends exactly COUNT requests to /classify; one thread, and a duration (-d) that is long enough for them:
--   COUNT=10000 wrk -t1 -c32 -d60s -s benchmarks/serving/exactly.lua http://127.0.0.1:8000
local count = tonumber(os.getenv("COUNT") or "10000")
local sentences = {
  "a warm , funny and moving film .",
  "the plot goes nowhere and takes its time about it .",
  "worth seeing once .",
  "what could have been a sharp little comedy is flattened by a script that explains every joke twice .",
  "dull",
  "the actors are good , the dialogue is not .",
}
local asked, answered, bad = 0, 0, 0

function delay()
  -- Called once before each request; once all are asked, it keeps a connection still, and response() ends the run.
  asked = asked + 1
  if asked > count then return 600000 end
  return 0
end

function request()
  local body = string.format('{"inputs": "%s"}', sentences[math.random(#sentences)])
  return wrk.format("POST", "/classify", {["Content-Type"] = "application/json"}, body)
end

function response(status)
  answered = answered + 1
  if status ~= 200 then bad = bad + 1 end
  if answered >= count then
    print(string.format("answered %d, not 200: %d", answered, bad))
    wrk.thread:stop()
  end
end
