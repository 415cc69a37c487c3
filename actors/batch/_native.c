/* The batch kernel in C, as Python sees it; `native` loads this and nobody else should. Begin with `_kernel.h`, then
 * `_receive.h`, `_path.h`, `_answer.h`, `_lane.h` and, for what Python sees of these, `_answers.h` and `_lanes.h`.
 *
 * Exceptions are for callers that break the contract. The interpreter's lock is free while packets are worked on; the
 * buffers are held, so nobody resizes them meanwhile, and a key refuses a second thread.
 */

#define _GNU_SOURCE /* for struct in_pktinfo */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* 3.11, the first whose stable ABI has buffers */
#include <Python.h>
#include <structmember.h>

#include "_kernel.h"
#ifdef __linux__
#include <unistd.h>

#include "_receive.h"
#include "_path.h"
#include "_answer.h"
#include "_lane.h"
#endif

typedef struct {
    PyObject_HEAD
    void *context;
    PyObject *result; /* the class of what is returned */
    bool busy;
    uint32_t remote_index;
    Py_buffer window;
} Key;

static Key *new_key(PyTypeObject *type, const Py_buffer *bytes, PyObject *result, bool seals)
{
    if (bytes->len != KEY_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a key has 32 bytes");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Key *key = (Key *)allocate(type, 0);
    if (key == NULL)
        return NULL;
    key->result = Py_NewRef(result);
    key->context = new_context(bytes->buf, seals);
    if (key->context == NULL) {
        Py_DECREF(key);
        PyErr_SetString(PyExc_RuntimeError, "libcrypto refuses ChaCha20-Poly1305");
        return NULL;
    }
    return key;
}

static void key_dealloc(PyObject *self)
{
    Key *key = (Key *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (key->context != NULL)
        crypto.context_free(key->context);
    if (key->window.obj != NULL)
        PyBuffer_Release(&key->window);
    Py_XDECREF(key->result);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static bool is_free(const Key *key)
{
    if (key->busy)
        PyErr_SetString(PyExc_RuntimeError, "a key is used by one thread");
    return !key->busy;
}

static bool overlap(const Py_buffer *one, const Py_buffer *other)
{
    uintptr_t a = (uintptr_t)one->buf, b = (uintptr_t)other->buf;
    return a < b + (uintptr_t)other->len && b < a + (uintptr_t)one->len;
}

/* For PyArg_Parse: an integer of 64 bits, and nothing that would wrap around. */
static int to_uint64(PyObject *object, void *to)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(object);
    *(uint64_t *)to = value;
    return PyErr_Occurred() == NULL;
}

static PyObject *sealing_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_buffer bytes;
    uint64_t remote_index;
    PyObject *result;
    if (!PyArg_ParseTuple(args, "y*O&O", &bytes, to_uint64, &remote_index, &result))
        return NULL;
    Key *key = NULL;
    if (remote_index > UINT32_MAX)
        PyErr_SetString(PyExc_OverflowError, "an index has 32 bits");
    else if ((key = new_key(type, &bytes, result, true)) != NULL)
        key->remote_index = (uint32_t)remote_index;
    PyBuffer_Release(&bytes);
    return (PyObject *)key;
}

static PyObject *complain(enum outcome outcome)
{
    if (outcome == NO_ROOM)
        return PyErr_Format(PyExc_ValueError, "the train has too little room");
    if (outcome == NO_COUNTERS)
        return PyErr_Format(PyExc_OverflowError, "there are no counters left");
    return PyErr_Format(PyExc_RuntimeError, "libcrypto does not seal");
}

static PyObject *to_sealed(const Key *key, const struct sealed *done)
{
    return PyObject_CallFunction(
        key->result, "nnn", (Py_ssize_t)done->datagrams, (Py_ssize_t)done->stride, (Py_ssize_t)done->total);
}

static PyObject *seal_into(Key *key, struct sealing *how, const Py_buffer *bytes, const Py_buffer *train)
{
    if (overlap(bytes, train))
        return PyErr_Format(PyExc_ValueError, "a frame is not sealed into itself");
    struct sealed done;
    enum outcome outcome;
    key->busy = true;
    Py_BEGIN_ALLOW_THREADS
    outcome = seal_one(how, bytes->buf, (size_t)bytes->len, train->buf, (size_t)train->len, &done);
    Py_END_ALLOW_THREADS
    key->busy = false;
    return outcome == SEALED ? to_sealed(key, &done) : complain(outcome);
}

/* Return the number of spans, or -1 and an exception where they are not as agreed. */
static Py_ssize_t check_frames(const Py_buffer *buffer, const Py_buffer *spans, const Py_buffer *train)
{
    Py_ssize_t number = spans->len / 8;
    bool right = spans->itemsize == 4 && spans->len % 8 == 0 && number <= MAX_DATAGRAMS && !overlap(buffer, train);
    for (Py_ssize_t i = 0; right && i < number; i++) {
        uint32_t span[2];
        memcpy(span, (const char *)spans->buf + 8 * i, 8);
        right = (uint64_t)span[0] + span[1] <= (uint64_t)buffer->len;
    }
    if (!right)
        PyErr_SetString(PyExc_ValueError, "spans are at most 1024 pairs in a buffer that is not the train's");
    return right ? number : -1;
}

static PyObject *seal_each_into(
    Key *key, struct sealing *how, const Py_buffer *buffer, const Py_buffer *spans, const Py_buffer *train)
{
    Py_ssize_t number = check_frames(buffer, spans, train), sealed = 0;
    if (number < 0)
        return NULL;
    struct sealed done[MAX_DATAGRAMS]; /* 24 kB of the stack; only what is used is written */
    enum outcome outcome = SEALED;
    size_t used = 0;
    key->busy = true;
    Py_BEGIN_ALLOW_THREADS
    for (; sealed < number && (sealed == 0 || (size_t)train->len - used >= TRAIN_BYTES); sealed++) {
        uint32_t span[2];
        memcpy(span, (const char *)spans->buf + 8 * sealed, 8);
        outcome = seal_one(how, (const uint8_t *)buffer->buf + span[0], span[1], (uint8_t *)train->buf + used,
                           (size_t)train->len - used, &done[sealed]);
        if (outcome != SEALED)
            break;
        used += done[sealed].total;
    }
    Py_END_ALLOW_THREADS
    key->busy = false;
    if (outcome != SEALED)
        return complain(outcome);
    PyObject *all = PyList_New(sealed);
    for (Py_ssize_t i = 0; all != NULL && i < sealed; i++) {
        PyObject *one = to_sealed(key, &done[i]);
        if (one == NULL || PyList_SetItem(all, i, one) < 0)
            Py_CLEAR(all);
    }
    return all;
}

/* For PyArg_Parse: a channel's number, or None. */
static int to_channel(PyObject *object, void *to)
{
    long number = Py_IsNone(object) ? -1 : PyLong_AsLong(object);
    if (!Py_IsNone(object) && !PyErr_Occurred() && (number < 0 || number > UINT16_MAX))
        PyErr_SetString(PyExc_ValueError, "a channel has 16 bits");
    *(int *)to = (int)number;
    return PyErr_Occurred() == NULL;
}

static PyObject *sealing_seal(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"frame", "train", "counter", "mtu", "channel", NULL};
    Key *key = (Key *)self;
    struct sealing how = {.context = key->context, .remote_index = key->remote_index, .channel = -1};
    Py_buffer frame, train;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*w*O&n|O&", names, &frame, &train, to_uint64, &how.counter,
                                     &how.mtu, to_channel, &how.channel))
        return NULL;
    PyObject *sealed = is_free(key) ? seal_into(key, &how, &frame, &train) : NULL;
    PyBuffer_Release(&frame);
    PyBuffer_Release(&train);
    return sealed;
}

static PyObject *sealing_seal_each(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"buffer", "spans", "train", "counter", "mtu", "channel", NULL};
    Key *key = (Key *)self;
    struct sealing how = {.context = key->context, .remote_index = key->remote_index, .channel = -1};
    Py_buffer buffer, spans, train;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*y*w*O&n|O&", names, &buffer, &spans, &train, to_uint64,
                                     &how.counter, &how.mtu, to_channel, &how.channel))
        return NULL;
    PyObject *sealed = is_free(key) ? seal_each_into(key, &how, &buffer, &spans, &train) : NULL;
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&spans);
    PyBuffer_Release(&train);
    return sealed;
}

static PyObject *opening_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_buffer bytes;
    PyObject *state, *result;
    if (!PyArg_ParseTuple(args, "y*OO", &bytes, &state, &result))
        return NULL;
    Key *key = new_key(type, &bytes, result, false);
    PyBuffer_Release(&bytes);
    if (key == NULL)
        return NULL;
    if (PyObject_GetBuffer(state, &key->window, PyBUF_WRITABLE) < 0) {
        Py_DECREF(key);
        return NULL;
    }
    if (key->window.itemsize != 8 || key->window.len != 8 * (1 + WINDOW_WORDS) || (uintptr_t)key->window.buf % 8) {
        Py_DECREF(key);
        return PyErr_Format(PyExc_ValueError, "a window's state is an array('Q') of %d", 1 + WINDOW_WORDS);
    }
    return (PyObject *)key;
}

/* Return the number of spans, or -1 and an exception where they are not as agreed. */
static Py_ssize_t check_spans(const Py_buffer *buffer, const Py_buffer *spans, const Py_buffer *out)
{
    const char *wrong = NULL;
    Py_ssize_t number = spans->len / 8;
    size_t needed = 0;
    if (spans->itemsize != 4 || spans->len % 8 || number > MAX_DATAGRAMS)
        wrong = "spans are an array('I') of at most 1024 pairs";
    for (Py_ssize_t i = 0; wrong == NULL && i < number; i++) {
        uint32_t span[2];
        memcpy(span, (const char *)spans->buf + 8 * i, 8);
        if (span[1] < HEADER_BYTES + TAG_BYTES || (uint64_t)span[0] + span[1] > (uint64_t)buffer->len)
            wrong = "a span is too short, or outside the buffer";
        needed += span[1] - HEADER_BYTES - TAG_BYTES + VNET_BYTES;
    }
    if (wrong == NULL && (needed > (size_t)out->len || overlap(buffer, out)))
        wrong = "out has too little room, or overlaps the buffer";
    if (wrong != NULL)
        PyErr_SetString(PyExc_ValueError, wrong);
    return wrong == NULL ? number : -1;
}

static PyObject *to_opened(const Key *key, const struct burst *burst)
{
    const struct counts *counts = &burst->counts;
    PyObject *frames = PyList_New((Py_ssize_t)burst->groups);
    Py_ssize_t start = 0;
    for (size_t i = 0; frames != NULL && i < burst->groups; i++) {
        const struct group *group = &burst->group[i];
        Py_ssize_t end = start + VNET_BYTES + (Py_ssize_t)group->length;
        PyObject *frame = Py_BuildValue("nni", start, end, (int)group->packets);
        if (frame == NULL || PyList_SetItem(frames, (Py_ssize_t)i, frame) < 0)
            Py_CLEAR(frames);
        start = end;
    }
    if (frames == NULL)
        return NULL;
    return PyObject_CallFunction(
        key->result, "Nnnnnnnn", frames, counts->datagrams, counts->octets, counts->keepalives, counts->replayed,
        counts->forged, counts->malformed, counts->over_limit);
}

static PyObject *open_into(
    Key *key, const Py_buffer *buffer, const Py_buffer *spans, const Py_buffer *out, uint64_t limit, bool coalesce)
{
    Py_ssize_t number = check_spans(buffer, spans, out);
    if (number < 0)
        return NULL;
    struct burst burst; /* 44 kB of the stack; only what is used is written */
    burst.bytes = buffer->buf;
    burst.packets = burst.groups = burst.settled = 0;
    burst.counts = (struct counts){0};
    key->busy = true;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < number; i++) {
        uint32_t span[2];
        memcpy(span, (const char *)spans->buf + 8 * i, 8);
        open_datagram(key->context, key->window.buf, limit, &burst, span[0], span[1]);
    }
    for (size_t i = 0; i < burst.packets; i++) {
        if (coalesce && burst.packets > 1)
            examine(burst.bytes + burst.packet[i].at, &burst.packet[i]);
        group_packet(&burst, (uint16_t)i);
    }
    uint8_t *at = out->buf;
    for (size_t i = 0; i < burst.groups; i++) {
        write_group(&burst, &burst.group[i], at);
        at += VNET_BYTES + burst.group[i].length;
    }
    Py_END_ALLOW_THREADS
    key->busy = false;
    return to_opened(key, &burst);
}

static PyObject *opening_open(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"buffer", "spans", "out", "limit", "coalesce", NULL};
    Py_buffer buffer, spans, out;
    uint64_t limit;
    int coalesce = true;
    PyObject *opened = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "w*y*w*O&|p", names, &buffer, &spans, &out, to_uint64, &limit, &coalesce))
        return NULL;
    if (is_free((Key *)self))
        opened = open_into((Key *)self, &buffer, &spans, &out, limit, coalesce);
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&spans);
    PyBuffer_Release(&out);
    return opened;
}

/* Return the receiver index that all datagrams name, or None: one of them is none that could be opened, or they differ,
 * or they are more than one call opens. */
static PyObject *index_of(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer, spans;
    if (!PyArg_ParseTuple(args, "y*y*", &buffer, &spans))
        return NULL;
    static const uint8_t type[4] = {4, 0, 0, 0};
    Py_ssize_t number = spans.len / 8;
    const uint8_t *head = NULL;
    bool same = spans.itemsize == 4 && number > 0 && number <= MAX_DATAGRAMS;
    for (Py_ssize_t i = 0; same && i < number; i++) {
        uint32_t span[2];
        memcpy(span, (const char *)spans.buf + 8 * i, 8);
        const uint8_t *at = (const uint8_t *)buffer.buf + span[0];
        same = span[1] >= HEADER_BYTES + TAG_BYTES && (uint64_t)span[0] + span[1] <= (uint64_t)buffer.len &&
               !memcmp(at, head != NULL ? head : type, head != NULL ? 8 : 4);
        head = same ? at : NULL;
    }
    PyObject *index = same ? PyLong_FromUnsignedLong((unsigned long)(head[4] | head[5] << 8 | head[6] << 16) |
                                                     (unsigned long)head[7] << 24)
                           : Py_NewRef(Py_None);
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&spans);
    return index;
}

#ifdef __linux__
static PyObject *to_runs(const struct reading *reading)
{
    PyObject *runs = PyList_New((Py_ssize_t)reading->runs);
    for (size_t i = 0; runs != NULL && i < reading->runs; i++) {
        const struct run *run = &reading->run[i];
        PyObject *one = Py_BuildValue(
            "y#y#y#y#", run->head, (Py_ssize_t)run->head_bytes, reading->spans + run->first,
            (Py_ssize_t)(run->datagrams * sizeof *reading->spans), run->place, (Py_ssize_t)run->place_bytes, run->name,
            (Py_ssize_t)run->name_bytes);
        if (one == NULL || PyList_SetItem(runs, (Py_ssize_t)i, one) < 0)
            Py_CLEAR(runs);
    }
    return runs;
}

/* (end, reads, errno, runs) of what was read into a buffer from `at` on, while a whole train fits. */
static PyObject *receive(PyObject *Py_UNUSED(module), PyObject *args)
{
    int descriptor;
    Py_buffer buffer;
    Py_ssize_t at, most;
    if (!PyArg_ParseTuple(args, "iw*nn", &descriptor, &buffer, &at, &most))
        return NULL;
    if (at < 0 || at > buffer.len || most < 0 || (uint64_t)buffer.len > UINT32_MAX) {
        PyBuffer_Release(&buffer);
        return PyErr_Format(PyExc_ValueError, "there is no such place in the buffer");
    }
    struct reading reading = {.bytes = buffer.buf, .end = (size_t)at, .room = (size_t)buffer.len};
    Py_BEGIN_ALLOW_THREADS
    while (reading.reads < (size_t)most && reading.room - reading.end >= MAX_DATAGRAM_BYTES)
        if (!read_message(&reading, descriptor))
            break;
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buffer);
    PyObject *runs = to_runs(&reading);
    free(reading.run);
    free(reading.spans);
    if (runs == NULL)
        return NULL;
    return Py_BuildValue("nniN", (Py_ssize_t)reading.end, (Py_ssize_t)reading.reads, reading.error, runs);
}

/* (spans, errno) of the frames that were read from a device; errno is -1 at its end. Where it does not put a header
 * before each, there is one of zeros. */
static PyObject *read_frames(PyObject *Py_UNUSED(module), PyObject *args)
{
    int descriptor, error = 0;
    Py_buffer buffer;
    Py_ssize_t header, most, frames = 0;
    if (!PyArg_ParseTuple(args, "iw*nn", &descriptor, &buffer, &header, &most))
        return NULL;
    uint32_t spans[MAX_DATAGRAMS][2];
    if (most > MAX_DATAGRAMS || header < 0 || header > VNET_BYTES || (uint64_t)buffer.len > UINT32_MAX) {
        PyBuffer_Release(&buffer);
        return PyErr_Format(PyExc_ValueError, "at most 1024 frames with headers of at most 10 bytes");
    }
    size_t end = 0, room = (size_t)buffer.len;
    Py_BEGIN_ALLOW_THREADS
    while (frames < most && room - end >= VNET_BYTES + MAX_PACKET_BYTES) {
        uint8_t *at = (uint8_t *)buffer.buf + end;
        ssize_t size = read(descriptor, at + header, VNET_BYTES + MAX_PACKET_BYTES - (size_t)header);
        if (size <= 0) {
            error = size < 0 ? errno : -1;
            break;
        }
        memset(at, 0, (size_t)header);
        spans[frames][0] = (uint32_t)end;
        spans[frames++][1] = (uint32_t)(size + header);
        end += (size_t)(size + header);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buffer);
    return Py_BuildValue("y#i", spans, (Py_ssize_t)(frames * (Py_ssize_t)sizeof *spans), error);
}
#endif

#ifdef __linux__
#include "_lanes.h"
#endif

static PyMethodDef functions[] = {
    {"index_of", index_of, METH_VARARGS, NULL},
#ifdef __linux__
    {"read_frames", read_frames, METH_VARARGS, NULL},
    {"receive", receive, METH_VARARGS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static PyMethodDef sealing_methods[] = {
    {"seal", (PyCFunction)(void (*)(void))sealing_seal, METH_VARARGS | METH_KEYWORDS, NULL},
    {"seal_each", (PyCFunction)(void (*)(void))sealing_seal_each, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef opening_methods[] = {
    {"open", (PyCFunction)(void (*)(void))opening_open, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sealing_slots[] = {
    {Py_tp_new, sealing_new}, {Py_tp_dealloc, key_dealloc}, {Py_tp_methods, sealing_methods}, {0, NULL}};
static PyType_Slot opening_slots[] = {
    {Py_tp_new, opening_new}, {Py_tp_dealloc, key_dealloc}, {Py_tp_methods, opening_methods}, {0, NULL}};

static PyType_Spec specs[] = {
    {"exeunt.actors.batch._native.Sealing", sizeof(Key), 0, Py_TPFLAGS_DEFAULT, sealing_slots},
    {"exeunt.actors.batch._native.Opening", sizeof(Key), 0, Py_TPFLAGS_DEFAULT, opening_slots},
#ifdef __linux__
    {"exeunt.actors.batch._native.Lane", sizeof(Lane), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, lane_slots},
    {"exeunt.actors.batch._native.Lanes", sizeof(Lanes), 0, Py_TPFLAGS_DEFAULT, lanes_slots},
    {"exeunt.actors.batch._native.Answerer", sizeof(Answerer), 0,
     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, answerer_slots},
#endif
};

static int execute(PyObject *module)
{
    const char *missing = find_crypto();
    if (missing != NULL) {
        PyErr_SetString(PyExc_ImportError, missing);
        return -1;
    }
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, &specs[i], NULL);
        int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0;
#ifdef __linux__
        if (!failed)
            know_type(i, (PyTypeObject *)type);
#endif
        Py_XDECREF(type);
        if (failed)
            return -1;
    }
    return PyModule_AddStringConstant(module, "LIBCRYPTO", crypto.version(0));
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_native", .m_doc = "The kernel in C; use `native`.", .m_methods = functions,
    .m_slots = module_slots};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module_definition); }
