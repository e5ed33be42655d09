BEGIN TRANSACTION;
CREATE TABLE audit (
	id INTEGER NOT NULL,
	at DOUBLE NOT NULL,
	who TEXT NOT NULL,
	what TEXT NOT NULL,
	whom TEXT NOT NULL,
	source TEXT NOT NULL,
	detail TEXT NOT NULL,
	CONSTRAINT pk_audit PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,1.0,'operator:ada','drain','host-1','192.0.2.99','');
INSERT INTO "audit" VALUES(2,2.0,'operator:ada','drain','host-2','192.0.2.99','');
CREATE TABLE d1fleet_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT d1fleet_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "d1fleet_version" VALUES('0001');
CREATE TABLE hosts (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	owner TEXT NOT NULL,
	address TEXT NOT NULL,
	fixed_address TEXT NOT NULL,
	slots INTEGER NOT NULL,
	port INTEGER NOT NULL,
	ssh_port INTEGER NOT NULL,
	serving BOOLEAN NOT NULL,
	version TEXT NOT NULL,
	system TEXT NOT NULL,
	machine TEXT NOT NULL,
	host_keys TEXT NOT NULL,
	toolchain TEXT NOT NULL,
	generation BIGINT NOT NULL,
	session TEXT NOT NULL,
	joined_at DOUBLE NOT NULL,
	seen_at DOUBLE NOT NULL,
	drained BOOLEAN NOT NULL,
	expunged BOOLEAN NOT NULL,
	cloned BOOLEAN NOT NULL,
	"left" BOOLEAN NOT NULL,
	gone BOOLEAN NOT NULL,
	note TEXT NOT NULL,
	CONSTRAINT pk_hosts PRIMARY KEY (id),
	CONSTRAINT uq_hosts_name UNIQUE (name)
);
INSERT INTO "hosts" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','alder.example','ada','192.0.2.11','2001:db8::1',8,3633,2222,0,'0.1.0','Debian GNU/Linux 12','0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a','["ssh-ed25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ssh-rsa BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB=="]','{"as":"2.40 é\"''","cc":"gcc 12.2.0"}',3,'5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e',1700000000.25,1700000001.125,1,0,0,1,0,'its address 192.0.2.11 is in none of the ranges');
INSERT INTO "hosts" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','birch','','','',1,3632,22,1,'','','','[]','{}',1,'',2.0,0.0,0,1,1,0,1,'');
INSERT INTO "hosts" VALUES('cccccccccccccccccccccccccccccccc','cedar','','','',1,3632,22,1,'','','','[]','{}',1,'',1.0,0.0,0,0,0,0,0,'');
CREATE TABLE keys (
	id TEXT NOT NULL,
	digest TEXT NOT NULL,
	kind TEXT NOT NULL,
	note TEXT NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_keys PRIMARY KEY (id)
);
INSERT INTO "keys" VALUES('89abcdef','e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2','viewer','dashboard',6.0);
CREATE TABLE marks (
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	CONSTRAINT pk_marks PRIMARY KEY (name)
);
INSERT INTO "marks" VALUES('made_at','1700000000.5');
INSERT INTO "marks" VALUES('writer','8faed0dab9a6afa191b26a4095b65471');
CREATE TABLE memberships (
	host_id TEXT NOT NULL,
	position INTEGER NOT NULL,
	project TEXT NOT NULL,
	CONSTRAINT pk_memberships PRIMARY KEY (host_id, position),
	CONSTRAINT uq_memberships_host_id_project UNIQUE (host_id, project),
	CONSTRAINT fk_memberships_host_id FOREIGN KEY(host_id) REFERENCES hosts (id) ON DELETE CASCADE,
	CONSTRAINT fk_memberships_project FOREIGN KEY(project) REFERENCES projects (name)
);
INSERT INTO "memberships" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',0,'tools');
INSERT INTO "memberships" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1,'engine');
INSERT INTO "memberships" VALUES('cccccccccccccccccccccccccccccccc',0,'engine');
CREATE TABLE operators (
	name TEXT NOT NULL,
	password_hash TEXT NOT NULL,
	kind TEXT NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_operators PRIMARY KEY (name)
);
INSERT INTO "operators" VALUES('ada','$argon2id$v=19$m=64,t=1,p=4$c2FsdA$aGFzaA','operator',5.0);
CREATE TABLE projects (
	name TEXT NOT NULL,
	ranges TEXT NOT NULL,
	options TEXT NOT NULL,
	transport TEXT NOT NULL,
	toolchain_mismatch TEXT NOT NULL,
	old_clients BOOLEAN NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_projects PRIMARY KEY (name)
);
INSERT INTO "projects" VALUES('engine','["192.0.2.0/24","2001:db8::/64"]','["lzo","cpp"]','ssh','ignore',1,1.5);
INSERT INTO "projects" VALUES('tools','["198.51.100.0/24"]','["lzo"]','tcp','exclude',0,0.0);
CREATE TABLE tokens (
	id TEXT NOT NULL,
	project TEXT NOT NULL,
	digest TEXT NOT NULL,
	note TEXT NOT NULL,
	created_at DOUBLE NOT NULL,
	used_at DOUBLE NOT NULL,
	CONSTRAINT pk_tokens PRIMARY KEY (id),
	CONSTRAINT fk_tokens_project FOREIGN KEY(project) REFERENCES projects (name)
);
INSERT INTO "tokens" VALUES('0123abcd','engine','d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1','for Ada''s own',3.0,4.0);
CREATE INDEX ix_memberships_project ON memberships (project);
CREATE INDEX ix_tokens_project ON tokens (project);
COMMIT;
