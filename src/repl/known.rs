//! What completion knows: tables and their columns, topics, jobs. Kept up to date by a thread of its own, so that no key
//! press waits for a broker.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use arrow::datatypes::Fields;
use tidemill::completion::Known;
use tidemill::runtime::Engine;

/// A handle on what is known.
#[derive(Clone)]
pub struct Knowledge {
    known: Arc<Mutex<Known>>,
    wishes: Sender<Wish>,
}

/// What the thread is to find out.
enum Wish {
    /// Everything anew.
    All,
    /// The columns of a topic.
    Topic(String),
}

impl Knowledge {
    /// Begins to find out.
    pub fn of(engine: &Engine) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let (wishes, wanted) = channel();
        let (engine, shared) = (engine.clone(), Arc::clone(&known));
        // Without the thread there is nothing to complete.
        let _ = thread::Builder::new().name("completion".to_owned()).spawn(move || learn(&engine, &shared, &wanted));
        let knowledge = Self { known, wishes };
        knowledge.refresh();
        knowledge
    }

    /// Finds out anew, in a while.
    pub fn refresh(&self) {
        // The thread is gone only when it could not be started.
        let _ = self.wishes.send(Wish::All);
    }

    /// What is known now.
    pub fn now(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out the columns of topics that a text names, for the next time.
    pub fn want_topics_in(&self, text: &str) {
        let mut known = self.now();
        let named = |topic: &&String| text.contains(topic.as_str());
        let is_new = |topic: &&String| !known.tables.contains_key(*topic) && !known.topic_columns.contains_key(*topic);
        let new: Vec<_> = known.topics.iter().filter(named).filter(is_new).cloned().collect();
        for topic in new {
            known.topic_columns.insert(topic.clone(), Fields::empty());
            let _ = self.wishes.send(Wish::Topic(topic));
        }
    }
}

fn learn(engine: &Engine, shared: &Mutex<Known>, wanted: &Receiver<Wish>) {
    let known = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(wish) = wanted.recv() {
        match wish {
            Wish::Topic(topic) => {
                if let Ok(columns) = engine.topic_columns(&topic) {
                    known().topic_columns.insert(topic, columns);
                }
            }
            Wish::All => {
                let names = engine.names();
                {
                    let mut known = known();
                    known.tables = names.tables;
                    known.jobs = names.jobs;
                    known.functions = names.functions;
                }
                // What a broker cannot tell now stays as it was.
                if let Ok(topics) = engine.topic_names() {
                    known().topics = topics.into_iter().collect();
                }
            }
        }
    }
}
