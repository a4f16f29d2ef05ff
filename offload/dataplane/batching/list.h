/* Intrusive doubly linked lists. An empty list is a node linked to itself; so is a node that is in no list. */
#ifndef OFFLOAD_LIST_H
#define OFFLOAD_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct list_node {
  struct list_node *next, *previous;
} list_node;

#define LIST_ENTRY(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))

static inline void list_init(list_node *node) {
  node->next = node->previous = node;
}

static inline bool list_empty(const list_node *list) {
  return list->next == list;
}

static inline void list_push(list_node *list, list_node *node) {
  node->previous = list->previous;
  node->next = list;
  list->previous->next = node;
  list->previous = node;
}

/* Takes the node out of whatever list it is in; harmless when it is in none. */
static inline void list_remove(list_node *node) {
  node->previous->next = node->next;
  node->next->previous = node->previous;
  list_init(node);
}

/* Removes and returns the first node, or NULL. */
static inline list_node *list_pop(list_node *list) {
  if (list_empty(list)) return NULL;
  list_node *node = list->next;
  list_remove(node);
  return node;
}

/* Moves everything to the end of `to`. */
static inline void list_splice(list_node *to, list_node *from) {
  if (list_empty(from)) return;
  from->next->previous = to->previous;
  to->previous->next = from->next;
  from->previous->next = to;
  to->previous = from->previous;
  list_init(from);
}

#endif
