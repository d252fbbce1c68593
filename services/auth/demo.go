package auth

// DemoUser is one of the users that SeedDemoUsers adds. Password is "" for one that nobody can log in as.
type DemoUser struct {
	Username string
	Password string
}

// DemoUsers lists them, for a program to show.
func DemoUsers() []DemoUser {
	var out []DemoUser
	for _, u := range demoUsers {
		out = append(out, DemoUser{u.name, u.password})
	}
	return out
}
