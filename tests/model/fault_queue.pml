/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The algorithm of daemon/core/fault_queue.c, statement by statement: two producers, a consumer that
 * sleeps, all interleavings.  A full queue makes a producer resolve the fault itself, as in the
 * daemon; the consumer's wait also ends for reasons of its own, as an io_uring's does.
 *
 * Shown: no record is lost, torn or taken twice; one producer's come in its order; nobody sleeps while
 * a record is queued and no wake is on its way; at most one wake is owed for each announcement.
 *
 * What the model takes as atomic and in order is so in the code: turn and sleeping are sequentially
 * consistent where they meet, and the record is ordered by release and acquire of its cell's turn.
 *
 * Each BROKEN_ define takes away what one of these rests on; run.py requires that it is noticed.
 */
#define PRODUCERS 2
#define EACH      3 /* records of one producer */
#define CAPACITY  2
#define STIRS     1 /* how often the sleep ends for another reason */

/* A record in two halves, so that a torn one shows. */
byte cell_who[CAPACITY], cell_what[CAPACITY];
byte turn[CAPACITY];
byte tail;
bool sleeping;

bool signal; /* the wake: remembered, as an eventfd is */
bool unpaid; /* an announcement for which no wake was owed yet */
byte stirs;
bool stop;

byte producers_done;
byte taken, refused;    /* harvested; resolved by the producer, the queue being full */
byte last[PRODUCERS];   /* highest number harvested of each producer, from 1 */

inline push(who, what)
{
    atomic { position = tail; }
claiming:
    if
#ifdef BROKEN_CLAIM
    :: atomic { turn[position % CAPACITY] == position -> skip; }
       tail = position + 1;
#else
    :: atomic { turn[position % CAPACITY] == position && tail == position -> tail = position + 1; }
#endif
    :: atomic { turn[position % CAPACITY] == position && tail != position -> position = tail; }
       goto claiming;
    :: atomic { turn[position % CAPACITY] > position -> position = tail; }
       goto claiming;
    :: atomic { turn[position % CAPACITY] < position -> refused++; }
       goto pushed;
    fi;
#ifdef BROKEN_PUBLISH
    turn[position % CAPACITY] = position + 1;
#endif
#ifdef BROKEN_WAKE
    seen = sleeping;
#endif
    cell_who[position % CAPACITY] = who;
    cell_what[position % CAPACITY] = what;
#ifndef BROKEN_PUBLISH
    turn[position % CAPACITY] = position + 1;
#endif
#ifndef BROKEN_WAKE
    seen = sleeping;
#endif
    if
    :: seen ->
       atomic {
#ifndef BROKEN_EXCHANGE
           seen = sleeping;
           sleeping = false;
#endif
           assert(!seen || unpaid);
           unpaid = unpaid && !seen;
       }
    :: else
    fi;
    if
    :: atomic { seen -> seen = false; signal = true; } /* the caller's wake */
    :: else
    fi;
pushed:
    position = 0;
}

proctype producer(byte who)
{
    byte position, what = 1;
    bool seen;

    do
    :: what <= EACH ->
       push(who, what);
       what++;
    :: else -> break
    od;
    producers_done++;
}

proctype consumer()
{
    byte head, who, what;

awake:
    do
    :: turn[head % CAPACITY] == head + 1 ->
#ifdef BROKEN_FREE
       turn[head % CAPACITY] = head + CAPACITY;
#endif
       who = cell_who[head % CAPACITY];
       what = cell_what[head % CAPACITY];
#ifndef BROKEN_FREE
       turn[head % CAPACITY] = head + CAPACITY;
#endif
       head++;
       atomic {
           assert(what > last[who]);
           last[who] = what;
           taken++;
           who = 0;
           what = 0;
       }
    :: turn[head % CAPACITY] != head + 1 -> break
    od;
    if
    :: stop -> goto done;
    :: !stop
    fi;
    atomic { sleeping = true; unpaid = true; }
#ifndef BROKEN_SECOND_LOOK
    if
    :: turn[head % CAPACITY] == head + 1 -> goto up;
    :: else
    fi;
#endif
    if
    :: atomic { signal -> signal = false; }
    :: atomic { stirs < STIRS -> stirs++; }
    fi;
up:
    sleeping = false;
    goto awake;
done:
    skip;
}

init
{
    byte i;

    atomic {
        do
        :: i < CAPACITY -> turn[i] = i; i++;
        :: else -> break
        od;
        run producer(0);
        run producer(1);
        run consumer();
    }
    /* Nobody can do anything any more: then nothing may be left, and only the consumer sleeps. */
    timeout ->
    assert(producers_done == PRODUCERS);
    assert(taken + refused == PRODUCERS * EACH);
    stop = true;
    signal = true;
}
