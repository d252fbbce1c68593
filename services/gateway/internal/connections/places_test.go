package connections

// Places is how many addresses and users have connections.
func (t *Table) Places() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byAddr) + len(t.byUser)
}

// PlacesOf is how many connections of a user are signed in.
func (t *Table) PlacesOf(user string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byUser[user]
}
