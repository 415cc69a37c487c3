%% Two Erlang nodes on this machine: calls, calls with 100 outstanding, casts, from one to the other.
%% `serve` reads the names of measurements, a line each, and prints a JSON object for each.
-module(exeunt_bench).
-behaviour(gen_server).
-export([echo/0, serve/0]).
-export([init/1, handle_call/3, handle_cast/2]).

echo() -> {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []).

init([]) -> {ok, 0}.
handle_call(noted, _From, Count) -> {reply, Count, Count};
handle_call(Body, _From, Count) -> {reply, Body, Count}.
handle_cast(_Body, Count) -> {noreply, Count + 1}.

serve() ->
    [Host] = init:get_plain_arguments(),
    Node = list_to_atom(Host),
    wait_for(Node, 200),
    echo(),
    io:format("ready~n"),
    loop({echo, Node}).

wait_for(Node, Left) when Left > 0 ->
    case net_adm:ping(Node) of
        pong -> case rpc:call(Node, erlang, whereis, [echo]) of
                    undefined -> timer:sleep(20), wait_for(Node, Left - 1);
                    _ -> ok
                end;
        pang -> timer:sleep(20), wait_for(Node, Left - 1)
    end.

loop(Far) ->
    case io:get_line("") of
        eof -> halt();
        Line ->
            measure(string:trim(Line), Far),
            loop(Far)
    end.

measure("ask", Far) -> latencies("ask", Far, 2000);
measure("local_ask", _) -> latencies("local_ask", echo, 20000);
measure("asks", Far) -> rate("asks_per_s", asks(Far, 100, 100));
measure("tells", Far) -> rate("tells_per_s", tells(Far, 200000));
measure("local_tells", _) -> rate("local_tells_per_s", tells(echo, 200000));
measure("crowd", _) -> crowd(100000).

latencies(Name, To, Count) ->
    Body = <<0:512>>,
    All = [one(To, Body) || _ <- lists:seq(1, Count)],
    Counted = lists:sort(lists:nthtail(Count div 10, All)),
    Length = length(Counted),
    io:format("{\"~s_p50_us\": ~.3f, \"~s_p99_us\": ~.3f}~n",
        [Name, lists:nth(Length div 2, Counted) / 1000, Name, lists:nth(Length * 99 div 100, Counted) / 1000]).

one(To, Body) ->
    Began = erlang:monotonic_time(nanosecond),
    Body = gen_server:call(To, Body),
    erlang:monotonic_time(nanosecond) - Began.

asks(To, Askers, Each) ->
    many(To, Askers, Each),
    Began = erlang:monotonic_time(nanosecond),
    many(To, Askers, Each),
    Askers * Each * 1.0e9 / (erlang:monotonic_time(nanosecond) - Began).

many(To, Askers, Each) ->
    Monitors = [element(2, spawn_monitor(fun() -> [one(To, <<0:512>>) || _ <- lists:seq(1, Each)] end))
                || _ <- lists:seq(1, Askers)],
    [receive {'DOWN', Monitor, process, _, _} -> ok end || Monitor <- Monitors].

tells(To, Count) ->
    Before = gen_server:call(To, noted, 60000),
    Began = erlang:monotonic_time(nanosecond),
    cast(To, Count),
    After = gen_server:call(To, noted, 60000),
    Count = After - Before,
    Count * 1.0e9 / (erlang:monotonic_time(nanosecond) - Began).

cast(_To, 0) -> ok;
cast(To, Count) -> gen_server:cast(To, <<0:512>>), cast(To, Count - 1).

crowd(Count) ->
    Before = erlang:memory(processes),
    Began = erlang:monotonic_time(nanosecond),
    Pids = [element(2, gen_server:start(?MODULE, [], [])) || _ <- lists:seq(1, Count)],
    Took = erlang:monotonic_time(nanosecond) - Began,
    Used = erlang:memory(processes) - Before,
    [exit(Pid, kill) || Pid <- Pids],
    io:format("{\"actor_bytes\": ~.1f, \"actors_started_per_s\": ~.1f}~n", [Used / Count, Count * 1.0e9 / Took]).

rate(Name, Value) -> io:format("{\"~s\": ~.1f}~n", [Name, Value]).
