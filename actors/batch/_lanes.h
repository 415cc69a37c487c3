/* `_lane.h` as Python sees it: `Lane` is a session's, `Lanes` a worker's. Included by `_native.c`, behind `Key`. */

#include "_answers.h"

typedef struct {
    PyObject_HEAD
    struct lane lane;
    PyObject *sealing, *opening;
    Py_buffer counter;
    PyObject *owner; /* who is told; NULL: it is closed */
} Lane;

typedef struct {
    PyObject_HEAD
    struct lanes lanes;
    bool busy;
} Lanes;

static struct {
    PyTypeObject *sealing, *opening, *lane, *lanes;
} types;

static void know_type(size_t number, PyTypeObject *type)
{
    PyTypeObject **all[] = {&types.sealing, &types.opening, &types.lane, &types.lanes, &answerer_type};
    *all[number] = type; /* the module has it, for the life of the process */
    Py_INCREF((PyObject *)type);
}

static Lane *object_of(struct lane *lane) { return (Lane *)(void *)((char *)lane - offsetof(Lane, lane)); }

static struct lane **place_of(struct lanes *lanes, const struct lane *lane)
{
    struct lane **place = &lanes->bucket[bucket_of(lane->local_index)];
    while (*place != NULL && *place != lane)
        place = &(*place)->next;
    return place;
}

/* Nothing goes by it any more. */
static void close_lane(struct lanes *lanes, Lane *lane)
{
    struct lane **place = place_of(lanes, &lane->lane);
    if (*place == NULL)
        return;
    *place = lane->lane.next;
    for (size_t i = 0; i < KNOWN_SETS; i++)
        for (size_t way = 0; way < KNOWN_WAYS; way++)
            if (lanes->known[i][way].lane == &lane->lane)
                lanes->known[i][way] = (struct known){0};
    Py_CLEAR(lane->owner);
    Py_DECREF(lane);
}

static void lane_dealloc(PyObject *self)
{
    Lane *lane = (Lane *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (lane->counter.obj != NULL)
        PyBuffer_Release(&lane->counter);
    Py_XDECREF(lane->owner);
    Py_XDECREF(lane->sealing);
    Py_XDECREF(lane->opening);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* What was carried since the last time. */
static PyObject *lane_books(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    struct lane *lane = &((Lane *)self)->lane;
    struct books books = lane->books;
    const struct counts *counts = &books.opened;
    lane->books = (struct books){0};
    lane->is_noted = false;
    return Py_BuildValue(
        "nnnnnnnddddKKdd", counts->datagrams, counts->octets, counts->keepalives, counts->replayed, counts->forged,
        counts->malformed, counts->over_limit, books.received_before_at, books.received_at, books.delivered_at, books.owed_at,
        (unsigned long long)books.sent, (unsigned long long)books.sent_octets, books.sent_at, books.unanswered_at);
}

static PyObject *lanes_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    if (!PyArg_ParseTuple(args, ""))
        return NULL;
    Lanes *self = (Lanes *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL)
        self->lanes.device = -1;
    return (PyObject *)self;
}

static void lanes_dealloc(PyObject *self)
{
    struct lanes *lanes = &((Lanes *)self)->lanes;
    PyTypeObject *type = Py_TYPE(self);
    for (size_t i = 0; i < BUCKETS; i++)
        while (lanes->bucket[i] != NULL)
            close_lane(lanes, object_of(lanes->bucket[i]));
    close_all(&lanes->answers);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static bool is_idle(const Lanes *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "lanes are used by one thread");
    return !self->busy;
}

/* Copy at most so many bytes; false, with an exception: they are more. */
static bool copy_bytes(const Py_buffer *from, uint8_t *to, size_t room, uint8_t *bytes)
{
    if ((size_t)from->len > room) {
        PyErr_SetString(PyExc_ValueError, "this is no address");
        return false;
    }
    memcpy(to, from->buf, (size_t)from->len);
    *bytes = (uint8_t)from->len;
    return true;
}

/* Take what is sent to, as `name_source` names it, and from; false, with an exception: they make no sense. */
static bool set_path(struct path *path, const Py_buffer *name, const Py_buffer *place)
{
    if (!copy_bytes(name, path->name, sizeof path->name, &path->name_bytes) ||
        !copy_bytes(place, path->place, sizeof path->place, &path->place_bytes))
        return false;
    if (!is_path(path))
        PyErr_SetString(PyExc_ValueError, "both ends of a path have addresses of one family");
    return is_path(path);
}

/* Begin with a lane whose numbers are there already; the table has one reference to it, the caller gets another. */
static PyObject *begin_lane(struct lanes *lanes, Lane *lane, PyObject *sealing, PyObject *opening, PyObject *counter)
{
    if (!PyObject_TypeCheck(sealing, types.sealing) || !PyObject_TypeCheck(opening, types.opening))
        return PyErr_Format(PyExc_TypeError, "a lane has a Sealing and an Opening");
    if (PyObject_GetBuffer(counter, &lane->counter, PyBUF_WRITABLE) < 0)
        return NULL;
    if (lane->counter.itemsize != 8 || lane->counter.len != 8 || (uintptr_t)lane->counter.buf % 8)
        return PyErr_Format(PyExc_ValueError, "a counter is an array('Q') of one");
    if (find_lane(lanes, lane->lane.local_index) != NULL)
        return PyErr_Format(PyExc_ValueError, "this index has a lane");
    lane->sealing = Py_NewRef(sealing);
    lane->opening = Py_NewRef(opening);
    lane->lane.seals = ((Key *)sealing)->context;
    lane->lane.remote_index = ((Key *)sealing)->remote_index;
    lane->lane.opens = ((Key *)opening)->context;
    lane->lane.window = ((Key *)opening)->window.buf;
    lane->lane.counter = lane->counter.buf;
    struct lane **bucket = &lanes->bucket[bucket_of(lane->lane.local_index)];
    lane->lane.next = *bucket;
    *bucket = &lane->lane;
    return Py_NewRef((PyObject *)lane);
}

static PyObject *lanes_open(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"owner", "sealing", "opening", "counter", "local_index", "descriptor", "remote", "local",
                            "expires_at", "seal_before", "reject_after", "mtu", "limit", NULL};
    PyObject *owner, *sealing, *opening, *counter, *begun = NULL;
    Py_buffer name, place;
    struct lane new = {0};
    uint64_t local_index;
    Py_ssize_t limit;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOO&iy*y*dO&O&nn", names, &owner, &sealing, &opening, &counter, to_uint64, &local_index,
            &new.path.descriptor, &name, &place, &new.expires_at, to_uint64, &new.seal_before, to_uint64, &new.reject_after,
            &new.mtu, &limit))
        return NULL;
    new.limit = limit > 0 ? (size_t)limit : 0;
    new.local_index = (uint32_t)local_index;
    Lane *lane = NULL;
    if (local_index > UINT32_MAX || new.seal_before > UINT64_MAX - MAX_DATAGRAMS)
        PyErr_SetString(PyExc_OverflowError, "an index has 32 bits, and counters end before 2**64 - 1024");
    else if (is_idle((Lanes *)self) && set_path(&new.path, &name, &place))
        lane = (Lane *)((allocfunc)PyType_GetSlot(types.lane, Py_tp_alloc))(types.lane, 0);
    PyBuffer_Release(&name);
    PyBuffer_Release(&place);
    if (lane != NULL) {
        lane->lane = new;
        lane->owner = Py_NewRef(owner);
        begun = begin_lane(&((Lanes *)self)->lanes, lane, sealing, opening, counter);
        if (begun == NULL)
            Py_DECREF(lane);
    }
    return begun;
}

static PyObject *lanes_close(PyObject *self, PyObject *lane)
{
    if (!is_idle((Lanes *)self))
        return NULL;
    if (!PyObject_TypeCheck(lane, types.lane))
        return PyErr_Format(PyExc_TypeError, "this is no lane");
    close_lane(&((Lanes *)self)->lanes, (Lane *)lane);
    return Py_NewRef(Py_None);
}

/* Make an address of 4 or 16 bytes; false, with an exception: it is none. */
static bool to_address(const Py_buffer *bytes, struct address *address)
{
    *address = (struct address){.version = bytes->len == 4 ? 4 : 6};
    if (bytes->len == 4 || bytes->len == 16)
        memcpy(address->bytes, bytes->buf, (size_t)bytes->len);
    else
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
    return PyErr_Occurred() == NULL;
}

static PyObject *lanes_know(PyObject *self, PyObject *args)
{
    Py_buffer bytes;
    PyObject *lane;
    struct address address;
    if (!PyArg_ParseTuple(args, "y*O!", &bytes, types.lane, &lane))
        return NULL;
    struct lanes *lanes = &((Lanes *)self)->lanes;
    bool right = is_idle((Lanes *)self) && to_address(&bytes, &address);
    PyBuffer_Release(&bytes);
    if (!right)
        return NULL;
    if (*place_of(lanes, &((Lane *)lane)->lane) != NULL)
        know_lane(lanes, &address, &((Lane *)lane)->lane);
    return Py_NewRef(Py_None);
}

static PyObject *lanes_forget(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    struct lanes *lanes = &((Lanes *)self)->lanes;
    if (!is_idle((Lanes *)self))
        return NULL;
    memset(lanes->known, 0, sizeof lanes->known);
    return Py_NewRef(Py_None);
}

/* Tell which device there is (-1: none), and where what comes from it may come from. */
static PyObject *lanes_set_device(PyObject *self, PyObject *args)
{
    int device, merges;
    Py_ssize_t header;
    PyObject *own;
    struct lanes *lanes = &((Lanes *)self)->lanes;
    if (!PyArg_ParseTuple(args, "inpO!", &device, &header, &merges, &PyTuple_Type, &own) || !is_idle((Lanes *)self))
        return NULL;
    if ((header != 0 && header != VNET_BYTES) || PyTuple_Size(own) > OWN_ADDRESSES_MAX)
        return PyErr_Format(PyExc_ValueError, "a header has 0 or 10 bytes, and addresses are eight at most");
    lanes->device = -1;
    for (Py_ssize_t i = 0; i < PyTuple_Size(own); i++) {
        Py_buffer bytes;
        if (PyObject_GetBuffer(PyTuple_GetItem(own, i), &bytes, PyBUF_SIMPLE) < 0)
            return NULL;
        bool right = to_address(&bytes, &lanes->own[i]);
        PyBuffer_Release(&bytes);
        if (!right)
            return NULL;
    }
    lanes->device = device;
    lanes->header = (size_t)header;
    lanes->merges = merges;
    lanes->owns = (size_t)PyTuple_Size(own);
    return Py_NewRef(Py_None);
}

/* Begin to answer for a session; None: libcrypto does not do what that takes. */
static PyObject *lanes_answer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"owner", "key", "asked", "nominates", "nominations", "descriptor", "remote", "local",
                            "heard_at", "quiet_s", NULL};
    PyObject *owner, *begun = NULL;
    Py_buffer key, asked, nominations, name, place;
    struct answerer new = {.nominates = false};
    int nominates;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "Oy*y*py*iy*y*dd", names, &owner, &key, &asked, &nominates, &nominations, &new.path.descriptor,
            &name, &place, &new.heard_at, &new.quiet_s))
        return NULL;
    new.nominates = nominates;
    if (!may_authenticate())
        begun = Py_NewRef(Py_None);
    else if (is_idle((Lanes *)self) && set_path(&new.path, &name, &place) && set_answerer(&new, &key, &asked, &nominations))
        begun = open_answerer(&((Lanes *)self)->lanes.answers, &new, owner);
    Py_buffer *all[] = {&key, &asked, &nominations, &name, &place};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        PyBuffer_Release(all[i]);
    return begun;
}

static PyObject *lanes_answer_no_more(PyObject *self, PyObject *answerer)
{
    if (!is_idle((Lanes *)self))
        return NULL;
    if (!PyObject_TypeCheck(answerer, answerer_type))
        return PyErr_Format(PyExc_TypeError, "this is no answerer");
    close_answerer(&((Lanes *)self)->lanes.answers, (Answerer *)answerer);
    return Py_NewRef(Py_None);
}

static PyObject *lanes_silent_by(PyObject *self, PyObject *args)
{
    double then;
    if (!PyArg_ParseTuple(args, "d", &then) || !is_idle((Lanes *)self))
        return NULL;
    return silent_by(&((Lanes *)self)->lanes.answers, then);
}

static void begin_call(Lanes *self)
{
    self->lanes.call++;
    self->lanes.answers.call = self->lanes.call;
    self->lanes.now = now_s();
    self->lanes.notes = 0;
    self->lanes.stopped = NULL;
    self->lanes.refused = 0;
    self->busy = true;
}

/* The owners of lanes that have something new in their books. */
static PyObject *to_noted(const struct lanes *lanes)
{
    PyObject *noted = PyList_New((Py_ssize_t)lanes->notes);
    for (size_t i = 0; noted != NULL && i < lanes->notes; i++)
        if (PyList_SetItem(noted, (Py_ssize_t)i, Py_NewRef(object_of(lanes->noted[i])->owner)) < 0)
            Py_CLEAR(noted);
    return noted;
}

/* (owner, frames, mark) of a burst that was opened, and not all carried; or None. */
static PyObject *to_rest(const struct lanes *lanes)
{
    if (lanes->stopped == NULL)
        return Py_NewRef(Py_None);
    const struct burst *burst = &lanes->burst;
    PyObject *frames = PyList_New(0);
    Py_ssize_t start = (Py_ssize_t)lanes->stopped_at;
    for (size_t i = lanes->stopped_group; frames != NULL && i < burst->groups; i++) {
        Py_ssize_t end = start + VNET_BYTES + (Py_ssize_t)burst->group[i].length;
        PyObject *frame = Py_BuildValue("nni", start, end, (int)burst->group[i].packets);
        if (frame == NULL || PyList_Append(frames, frame) < 0)
            Py_CLEAR(frames);
        Py_XDECREF(frame);
        start = end;
    }
    if (frames == NULL)
        return NULL;
    return Py_BuildValue("ONi", object_of(lanes->stopped)->owner, frames, (int)lanes->stopped_ecn);
}

/* (end, reads, errno, runs, data, rest, noted): as `receive`, of what was not carried; whether any of what was is more
 * than a keepalive. */
static PyObject *lanes_receive(PyObject *self, PyObject *args)
{
    Lanes *lanes = (Lanes *)self;
    int descriptor, lonely;
    Py_buffer buffer, out;
    Py_ssize_t at, most;
    if (!PyArg_ParseTuple(args, "iw*nnpw*", &descriptor, &buffer, &at, &most, &lonely, &out))
        return NULL;
    bool right = at >= 0 && at <= buffer.len && most >= 0 && (uint64_t)buffer.len <= UINT32_MAX &&
                 out.len >= buffer.len + MAX_DATAGRAMS * VNET_BYTES && !overlap(&buffer, &out);
    struct reading reading = {.bytes = buffer.buf, .end = (size_t)at, .room = (size_t)buffer.len};
    bool data = false;
    if (!right)
        PyErr_SetString(PyExc_ValueError, "there is no such place in the buffer, or too little room to open it");
    else if ((right = is_idle(lanes))) {
        begin_call(lanes);
        Py_BEGIN_ALLOW_THREADS
        receive_and_pass(&lanes->lanes, &reading, descriptor, (size_t)most, lonely, out.buf, &data);
        Py_END_ALLOW_THREADS
        lanes->busy = false;
    }
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&out);
    PyObject *runs = right ? to_runs(&reading) : NULL;
    PyObject *rest = runs != NULL ? to_rest(&lanes->lanes) : NULL;
    PyObject *noted = rest != NULL ? to_noted(&lanes->lanes) : NULL;
    free(reading.run);
    free(reading.spans);
    if (noted == NULL) {
        Py_XDECREF(runs);
        Py_XDECREF(rest);
        return NULL;
    }
    return Py_BuildValue("nniNiNN", (Py_ssize_t)reading.end, (Py_ssize_t)reading.reads, reading.error, runs, (int)data,
                         rest, noted);
}

/* (spans, reads, errno, unsent, noted): as `read_frames`, of what was not carried; with each (owner, start, end, stride,
 * mark) of sealed trains that the kernel refused, and its errno. */
static PyObject *lanes_send(PyObject *self, PyObject *args)
{
    Lanes *lanes = (Lanes *)self;
    Py_buffer buffer, sealed;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(args, "w*nw*", &buffer, &most, &sealed))
        return NULL;
    struct left left = {.frames = 0}; /* 8 kB of the stack */
    bool right = most >= 0 && most <= MAX_DATAGRAMS && (uint64_t)buffer.len <= UINT32_MAX &&
                 sealed.len >= TRAIN_BYTES && !overlap(&buffer, &sealed);
    if (!right)
        PyErr_SetString(PyExc_ValueError, "at most 1024 frames, and room for a train that is not in the buffer");
    else if ((right = is_idle(lanes))) {
        begin_call(lanes);
        Py_BEGIN_ALLOW_THREADS
        read_and_pass(&lanes->lanes, buffer.buf, (size_t)buffer.len, (size_t)most, sealed.buf, (size_t)sealed.len, &left);
        Py_END_ALLOW_THREADS
        lanes->busy = false;
    }
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&sealed);
    PyObject *unsent = right ? PyList_New(0) : NULL;
    for (size_t i = 0; unsent != NULL && i < lanes->lanes.refused; i++) {
        const struct train *train = &lanes->lanes.unsent[i];
        PyObject *one = Py_BuildValue("Onnnii", object_of(train->lane)->owner, (Py_ssize_t)train->start,
                                      (Py_ssize_t)train->end, (Py_ssize_t)train->stride, (int)train->ecn,
                                      lanes->lanes.refusal);
        if (one == NULL || PyList_Append(unsent, one) < 0)
            Py_CLEAR(unsent);
        Py_XDECREF(one);
    }
    PyObject *noted = unsent != NULL ? to_noted(&lanes->lanes) : NULL;
    if (noted == NULL) {
        Py_XDECREF(unsent);
        return NULL;
    }
    return Py_BuildValue("y#niNN", left.spans, (Py_ssize_t)(left.frames * sizeof *left.spans), (Py_ssize_t)left.read,
                         left.error, unsent, noted);
}

static PyMemberDef lane_members[] = {
    {"is_noted", T_BOOL, offsetof(Lane, lane) + offsetof(struct lane, is_noted), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef lane_methods[] = {{"books", lane_books, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyMethodDef lanes_methods[] = {
    {"open", (PyCFunction)(void (*)(void))lanes_open, METH_VARARGS | METH_KEYWORDS, NULL},
    {"close", lanes_close, METH_O, NULL},
    {"know", lanes_know, METH_VARARGS, NULL},
    {"forget", lanes_forget, METH_NOARGS, NULL},
    {"set_device", lanes_set_device, METH_VARARGS, NULL},
    {"receive", lanes_receive, METH_VARARGS, NULL},
    {"answer", (PyCFunction)(void (*)(void))lanes_answer, METH_VARARGS | METH_KEYWORDS, NULL},
    {"answer_no_more", lanes_answer_no_more, METH_O, NULL},
    {"silent_by", lanes_silent_by, METH_VARARGS, NULL},
    {"send", lanes_send, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lane_slots[] = {{Py_tp_dealloc, lane_dealloc}, {Py_tp_methods, lane_methods}, {Py_tp_members, lane_members}, {0, NULL}};
static PyType_Slot lanes_slots[] = {
    {Py_tp_new, lanes_new}, {Py_tp_dealloc, lanes_dealloc}, {Py_tp_methods, lanes_methods}, {0, NULL}};
