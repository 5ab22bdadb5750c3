/* base/list.h - intrusive doubly linked list. Owner: the owner of the head. */
#ifndef PST_BASE_LIST_H
#define PST_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct pst_list {
    struct pst_list *prev;
    struct pst_list *next;
} pst_list;

#define PST_CONTAINER_OF(ptr, type, member) \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline void pst_list_init(pst_list *head) {
    head->prev = head;
    head->next = head;
}

static inline bool pst_list_empty(const pst_list *head) {
    return head->next == head;
}

static inline void pst_list_push_back(pst_list *head, pst_list *node) {
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void pst_list_push_front(pst_list *head, pst_list *node) {
    pst_list_push_back(head->next, node);
}

/* Removing a node that is its own list (initialised, not linked) is allowed and changes nothing. */
static inline void pst_list_remove(pst_list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node;
    node->next = node;
}

static inline pst_list *pst_list_pop_front(pst_list *head) {
    pst_list *node = head->next;
    if (node == head) {
        return NULL;
    }
    pst_list_remove(node);
    return node;
}

#endif
