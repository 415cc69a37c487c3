/* `_answer.h` as Python sees it: `Answerer` is a session's, and `Lanes` has the table. Included by `_lanes.h`. */

typedef struct {
    PyObject_HEAD
    struct answerer answerer;
    PyObject *owner; /* who is told; NULL: it is closed */
} Answerer;

static PyTypeObject *answerer_type;

static Answerer *object_of_answerer(struct answerer *answerer)
{
    return (Answerer *)(void *)((char *)answerer - offsetof(Answerer, answerer));
}

static void close_answerer(struct answers *answers, Answerer *object)
{
    const struct answerer *answerer = &object->answerer;
    struct answerer **place = answerer_bucket(answers, answerer->asked, answerer->username_bytes);
    while (*place != NULL && *place != answerer)
        place = &(*place)->next;
    if (*place == NULL)
        return;
    *place = answerer->next;
    Py_CLEAR(object->owner);
    Py_DECREF(object);
}

static void close_all(struct answers *answers)
{
    for (size_t i = 0; i < ANSWER_BUCKETS; i++)
        while (answers->bucket[i] != NULL)
            close_answerer(answers, object_of_answerer(answers->bucket[i]));
}

static void answerer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Answerer *)self)->owner);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* (answered, heard_before_at, heard_at): since it was opened. */
static PyObject *answerer_books(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    const struct answerer *answerer = &((Answerer *)self)->answerer;
    return Py_BuildValue(
        "Kdd", (unsigned long long)answerer->answered, answerer->heard_before_at, answerer->heard_at);
}

/* The ids that have nominated, the oldest first, one behind the other. */
static PyObject *answerer_nominations(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    const struct answerer *answerer = &((Answerer *)self)->answerer;
    uint8_t ids[NOMINATIONS_MAX][STUN_ID_BYTES];
    size_t first = answerer->next_nomination + NOMINATIONS_MAX - answerer->nominations;
    for (size_t i = 0; i < answerer->nominations; i++)
        memcpy(ids[i], answerer->nomination[(first + i) % NOMINATIONS_MAX], STUN_ID_BYTES);
    return PyBytes_FromStringAndSize((const char *)ids, (Py_ssize_t)answerer->nominations * STUN_ID_BYTES);
}

/* Take what is said of an answerer; false, with an exception: it makes no sense. */
static bool set_answerer(
    struct answerer *new, const Py_buffer *key, const Py_buffer *asked, const Py_buffer *nominations)
{
    size_t ids = (size_t)nominations->len / STUN_ID_BYTES;
    if (key->len > SHA1_BLOCK_BYTES || asked->len > ASKED_MAX || nominations->len % STUN_ID_BYTES || ids > NOMINATIONS_MAX) {
        PyErr_SetString(PyExc_ValueError, "a key has 64 bytes at most, a request 128, and 64 ids have 12 each");
        return false;
    }
    new->asked_bytes = (uint8_t)asked->len;
    memcpy(new->asked, asked->buf, (size_t)asked->len);
    new->username_bytes = (uint8_t)username_bytes_of(new->asked, new->asked_bytes);
    begin_key(&new->key, key->buf, (size_t)key->len);
    memcpy(new->nomination, nominations->buf, (size_t)nominations->len);
    new->nominations = (uint8_t)ids;
    new->next_nomination = (uint8_t)(ids % NOMINATIONS_MAX);
    if (new->username_bytes == 0)
        PyErr_SetString(PyExc_ValueError, "a request begins with USERNAME");
    return new->username_bytes != 0;
}

/* Begin with an answerer; the table has one reference to it, the caller gets another. */
static PyObject *open_answerer(struct answers *answers, const struct answerer *new, PyObject *owner)
{
    if (find_answerer(answers, new->asked, new->username_bytes) != NULL)
        return PyErr_Format(PyExc_ValueError, "this USERNAME has an answerer");
    Answerer *object = (Answerer *)((allocfunc)PyType_GetSlot(answerer_type, Py_tp_alloc))(answerer_type, 0);
    if (object == NULL)
        return NULL;
    struct answerer **bucket = answerer_bucket(answers, new->asked, new->username_bytes);
    object->answerer = *new;
    object->answerer.next = *bucket;
    object->owner = Py_NewRef(owner);
    *bucket = &object->answerer;
    return Py_NewRef((PyObject *)object);
}

/* The owners of answerers that will not have been heard for long enough by then, and when the next of the others will
 * not have been (infinity: there is none). */
static PyObject *silent_by(struct answers *answers, double then)
{
    double next = Py_HUGE_VAL;
    PyObject *owners = PyList_New(0);
    for (size_t i = 0; owners != NULL && i < ANSWER_BUCKETS; i++)
        for (struct answerer *one = answers->bucket[i]; owners != NULL && one != NULL; one = one->next) {
            double due = one->heard_at + one->quiet_s;
            if (due > then)
                next = due < next ? due : next;
            else if (PyList_Append(owners, object_of_answerer(one)->owner) < 0)
                Py_CLEAR(owners);
        }
    return owners == NULL ? NULL : Py_BuildValue("Nd", owners, next);
}

static PyMethodDef answerer_methods[] = {
    {"books", answerer_books, METH_NOARGS, NULL},
    {"nominations", answerer_nominations, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot answerer_slots[] = {{Py_tp_dealloc, answerer_dealloc}, {Py_tp_methods, answerer_methods}, {0, NULL}};
